// Draws the figure that Python holds, and tells Python whom the reader has brushed.
// plotly.js comes from Python too, so nothing is fetched. It is loaded here and not imported by the module itself: a
// widget must be ready within two seconds, which five megabytes are not on a busy machine.

function loadPlotly(source) {
  window.segfairPlotly ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => reject(new Error("plotly.js could not be loaded"));
    document.head.append(script);
  });
  return window.segfairPlotly;
}

async function render({ model, el }) {
  const Plotly = await loadPlotly(model.get("library"));
  const place = document.createElement("div");
  el.append(place);
  const draw = () => {
    const figure = JSON.parse(model.get("figure"));
    return Plotly.react(place, figure.data, figure.layout, model.get("config"));
  };
  const tell = (points) => {
    model.send({ brushed: points.filter((point) => point.customdata).map((point) => point.customdata[0]) });
  };
  await draw();
  // plotly tells of a selection, of nobody and without an outline, when the drawn box is taken away as well.
  place.on("plotly_selected", (event) => (event?.range || event?.lassoPoints) && tell(event.points));
  place.on("plotly_click", (event) => tell(event.points));
  place.on("plotly_doubleclick", () => tell([]));
  model.on("change:figure", draw);
  const observer = new ResizeObserver(() => place.offsetWidth && Plotly.Plots.resize(place));
  observer.observe(el);
  return () => {
    observer.disconnect();
    model.off("change:figure", draw);
    Plotly.purge(place);
  };
}

export default { render };
