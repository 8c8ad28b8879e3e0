// Draws the figure that Python holds, and tells Python which dots the reader has boxed or clicked.
// plotly.js comes from Python too, so nothing is fetched. It is loaded here, once for all figures of a page, and not
// imported by the module itself: a widget must be ready within two seconds, which five megabytes are not on a busy
// machine. For the same reason nothing is awaited before a word stands in the figure's place.

async function readLibrary(model) {
  const library = await model.widget_manager.get_model(model.get("library").replace("IPY_MODEL_", ""));
  return library.get("source");
}

function loadPlotly(model) {
  window.segfairPlotly ??= readLibrary(model).then((source) => new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => reject(new Error("plotly.js could not be loaded"));
    document.head.append(script);
  }));
  return window.segfairPlotly;
}

function render({ model, el }) {
  const word = Object.assign(document.createElement("div"), { className: "segfair-word" });
  word.setAttribute("role", "status");
  const place = document.createElement("div");
  place.style.height = "100%";
  el.style.position = "relative";
  word.style.cssText = "position:absolute; inset:0; display:flex; align-items:center; justify-content:center; z-index:1;"
    + " gap:0.5em; color:#4d5862; background:rgba(255,255,255,0.7)";
  el.append(place, word);
  let Plotly = null;

  const find = (point) => {
    const words = point.text ?? point.data?.text?.[point.pointNumber];
    return Number.isInteger(point.customdata?.[0]) ? point.customdata[0] : Number(/\bscan (\d+)/.exec(words)?.[1]);
  };
  const tell = (points) => model.send({ brushed: points.map(find).filter(Number.isInteger) });
  const listen = () => {
    // plotly tells of a selection, of nobody and without an outline, when the drawn box is taken away as well.
    place.on("plotly_selected", (event) => (event?.range || event?.lassoPoints) && tell(event.points));
    place.on("plotly_click", (event) => tell(event.points));
    place.on("plotly_doubleclick", () => tell([]));
  };
  const draw = async () => {
    word.hidden = false;
    word.style.display = "flex";
    word.textContent = "drawing …";
    try {
      const first = Plotly === null;
      Plotly = await loadPlotly(model);
      const figure = JSON.parse(model.get("figure"));
      await Plotly.react(place, figure.data, figure.layout, model.get("config"));
      if (first) listen();
      word.style.display = "none";
    } catch (error) {
      window.segfairPlotly = undefined;
      Plotly = null;
      const again = Object.assign(document.createElement("button"), { textContent: "↻ try again", onclick: draw });
      word.replaceChildren(`The figure could not be drawn (${error.message}).`, again);
    }
  };
  // One after the other: a figure that comes while another is drawn would be half of each.
  let last = draw();
  const drawNext = () => { last = last.then(draw); };
  model.on("change:figure", drawNext);
  const observer = new ResizeObserver(() => Plotly && place.offsetWidth && Plotly.Plots.resize(place));
  observer.observe(el);
  return () => {
    observer.disconnect();
    model.off("change:figure", drawNext);
    Plotly?.purge(place);
  };
}

export default { render };
