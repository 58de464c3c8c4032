"""The funnel of the corpus, how long it took, and what is alarming in it."""

from collections.abc import Sequence
from typing import Any

from jaxlm.reports.records import CorpusConfig, CorpusStats, Count, Timings
from jaxlm.reports.rules import Rule, nearest, reached, stage_of
from jaxlm.reports.units import duration, size, whole

ALARM_SHARE, ALARM_DOCUMENTS = 0.9, 10


def funnel(corpus: CorpusStats) -> dict[str, Any]:
    """Documents and bytes after each stage, by source and in all.

    Sources may have stages of their own: a stage that a source lacks leaves it as it was.
    """
    stages: list[str] = []
    for source in corpus.sources.values():
        stages += [s.stage for s in source.stages if s.stage not in stages]
    zero = Count(documents=0, bytes=0)
    table: dict[str, dict[str, Count]] = {}
    for name, source in corpus.sources.items():
        own = {stage.stage: stage for stage in source.stages}
        before: Count = zero
        table[name] = {stage: (before := own.get(stage, before)) for stage in stages}
    totals = {
        stage: Count(
            documents=sum(row[stage].documents for row in table.values()),
            bytes=sum(row[stage].bytes for row in table.values()),
        )
        for stage in stages
    }
    return {
        "stages": stages,
        "table": table,
        "totals": totals,
        "read": totals[stages[0]] if stages else zero,
        "kept": totals[stages[-1]] if stages else zero,
        "widest": Count(
            documents=max((t.documents for t in totals.values()), default=0),
            bytes=max((t.bytes for t in totals.values()), default=0),
        ),
    }


def cpu_times(corpus: CorpusStats, timings: Timings) -> dict[str, tuple[float, float | None]]:
    """Stage -> CPU seconds, and bytes a CPU second of the text that reached it in the sources that
    it worked on (None where the time is too short to tell)."""
    seconds, amount = dict[str, float](), dict[str, int]()
    for name, source in corpus.sources.items():
        for stage, spent in timings.cpu_seconds.get(name, {}).items():
            seconds[stage] = seconds.get(stage, 0.0) + spent
            amount[stage] = amount.get(stage, 0) + reached(source.stages, stage).bytes
    return {
        stage: (spent, amount[stage] / spent if spent >= 0.01 else None)
        for stage, spent in seconds.items()
    }


def alarms(corpus: CorpusStats, found: Sequence[Rule], config: CorpusConfig | None) -> list[str]:
    """Sources that were cut, rules and stages that took nearly all of one, rules that judged
    nothing. config: that of the corpus, None where it does not say what was judged."""
    out = []
    for name, source in corpus.sources.items():
        if source.cut_at_max_bytes:
            out.append(
                f"{name} was read up to its max_bytes, {size(source.max_bytes or 0)}; it has more"
            )
        blamed = set()
        for rule in found:
            # a rule that changes most documents is no alarm
            if name not in rule.sources or (rule.actions and "drop" not in rule.actions):
                continue
            one = rule.sources[name]
            took = max(one.count.documents, one.count.failed)
            if one.of >= ALARM_DOCUMENTS and took >= ALARM_SHARE * one.of:
                verb = "took" if one.count.documents == took else "fails"
                out.append(
                    f"{rule.name} {verb} {whole(took)} of the {whole(one.of)} documents of {name}"
                )
                blamed.add(stage_of(rule.name, source.stages))
        for before, after in zip(source.stages, source.stages[1:], strict=False):
            lost = before.documents - after.documents
            if (
                after.stage not in blamed
                and before.documents >= ALARM_DOCUMENTS
                and lost >= ALARM_SHARE * before.documents
            ):
                out.append(
                    f"{after.stage} took {whole(lost)} of the {whole(before.documents)} documents "
                    f"of {name}, by several rules"
                )
    return out + (unjudged(corpus, config) if config else [])


def never_failed(
    corpus: CorpusStats, found: Sequence[Rule], config: CorpusConfig | None
) -> list[str]:
    """Rules that nothing failed, each with how near the nearest value came; what did nothing."""
    out = []
    for rule in found:
        if rule.judged and not rule.failed:
            near = nearest(rule)
            out.append(
                f"{rule.name} ({rule.limit}): {whole(rule.judged)} judged"
                + (f", {near}" if near else "")
            )
        elif rule.sources and not rule.documents and not rule.thresholds:
            out.append(f"{rule.name}: dropped and changed nothing")
    return out + (idle_stages(corpus, config) if config else [])


def unjudged(corpus: CorpusStats, config: CorpusConfig) -> list[str]:
    """Rules of the config that judged not one document, most often because no source is of their
    kinds and no document in their languages; a whole stage of them is told once."""
    judged = {
        name
        for source in corpus.sources.values()
        for name, count in source.rules.items()
        if count.judged
    }
    out = []
    for stage, (section, own) in _configured(config).items():
        idle = [name for name in own if name not in judged]
        if own and len(idle) == len(own):
            kinds, languages = (", ".join(map(str, section[k])) for k in ("kinds", "languages"))
            out.append(
                f"{stage} judged no document, with none of its rules ({len(own)}). It is for "
                f"kinds {kinds} and languages {languages or '(all)'}"
            )
        elif idle:
            out.append(f"No document was judged by {', '.join(idle)}")
    return out


def idle_stages(corpus: CorpusStats, config: CorpusConfig) -> list[str]:
    """Stages without thresholds that dropped and changed nothing."""
    rules = {name for source in corpus.sources.values() for name in source.rules}
    return [
        f"{stage}: dropped and changed nothing"
        for stage, (_, own) in _configured(config).items()
        if not own and not any(name.startswith(f"{stage}.") for name in rules)
    ]


def _configured(config: CorpusConfig) -> dict[str, tuple[Any, list[str]]]:
    """Stage -> its section, and the names of its rules with thresholds, given for all or by a
    route."""
    routed = {
        key
        for route in config.prepare.routes
        for key, value in route.set.items()
        if value is not None
    }
    out = {}
    for stage in config.prepare.stages:
        section: Any = config.prepare.model_extra
        for part in stage.split("."):
            section = section.get(part, {}) if isinstance(section, dict) else {}
        # only sets of thresholds say which kinds and languages they judge
        rules = isinstance(section, dict) and {"kinds", "languages"} <= section.keys()
        own = [
            f"{stage}.{key}"
            for key, value in (section.items() if rules else ())
            if key.startswith(("min_", "max_"))
            and (value is not None or f"{stage}.{key}" in routed)
        ]
        out[stage] = section, own
    return out


def speed(corpus: CorpusStats, timings: Timings) -> str:
    """One sentence on how long the preparation took."""
    read = sum(s.stages[0].bytes for s in corpus.sources.values() if s.stages)
    spent = sum(sum(stages.values()) for stages in timings.cpu_seconds.values())
    return (
        f"{size(read)} in {duration(timings.seconds)}"
        + (f", {size(read / timings.seconds)}/s" if timings.seconds else "")
        + f"; {duration(spent)} of CPU time in the stages"
        + (f", {size(read / spent)} a CPU second" if spent >= 0.01 else "")
    )
