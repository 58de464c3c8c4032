// Values under the pointer, for each chart.
for (const figure of document.querySelectorAll("figure[data-readout]")) {
  const { steps: [first, last], series } = JSON.parse(figure.dataset.readout);
  const plot = figure.querySelector(".plot");
  const cursor = figure.querySelector(".cursor");
  const output = figure.querySelector("output");
  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    const step = first + ((event.clientX - box.left) / box.width) * (last - first);
    const nearest = series.map(([name, points]) => [
      name, points.reduce((a, b) => (Math.abs(b[0] - step) < Math.abs(a[0] - step) ? b : a), [Infinity, ""]),
    ]);
    const at = nearest[0][1][0];
    cursor.style.left = `${(100 * (at - first)) / (last - first || 1)}%`;
    const text = nearest.filter(([, point]) => point[0] === at || series.length === 1)
      .map(([name, point]) => `${name} ${point[1]}`);
    output.textContent = `step ${at.toLocaleString("en-US")}: ${text.join(", ")}`;
  });
  plot.addEventListener("pointerleave", () => {
    cursor.style.left = "-1px";
    output.textContent = "";
  });
}
