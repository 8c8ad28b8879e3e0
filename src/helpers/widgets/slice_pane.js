// One plane of a scan: the picture that Python draws, its slider and which slice it is. A click or a drag moves the
// other planes there; then the wheel goes through the slices (not before: the page is to scroll past); a drag with the
// right button changes brightness (up, down) and contrast (left, right).

function render({ model, el }) {
  const name = model.get("name");
  const frame = document.createElement("div");
  frame.innerHTML = `<img draggable="false" tabindex="0"
    style="display:block; width:100%; height:auto; cursor:crosshair; touch-action:none">
    <label style="display:flex; gap:6px; align-items:center; flex-wrap:wrap">
      <output style="white-space:nowrap"></output><input type="range" min="0" style="flex:1 1 60px; min-width:0">
    </label>`;
  // In JupyterLab arrow keys and the right button would else be Lab's own.
  Object.assign(frame.dataset, { lmSuppressShortcuts: "true", jpSuppressContextMenu: "true" });
  const [picture, output, slider] = ["img", "output", "input"].map((tag) => frame.querySelector(tag));
  picture.title = "click: move here; then wheel: through the slices; drag with the right button: brightness, contrast";
  el.style.minWidth = "0";
  el.append(frame);

  // Python draws one picture after the other: what comes meanwhile waits, the latest of its kind.
  let waiting = {};
  let isBusy = false;
  const send = (wish) => {
    if (wish.step) wish.step += waiting.step ?? 0;
    if (wish.window) wish.window = wish.window.map((part, place) => part + (waiting.window?.[place] ?? 0));
    waiting = { ...waiting, ...wish };
    if (isBusy || !Object.keys(waiting).length) return;
    isBusy = true;
    model.send(waiting);
    waiting = {};
  };
  const answer = () => { isBusy = false; send({}); };

  let address = null;
  const show = () => {
    const bytes = model.get("picture");
    if (!bytes?.byteLength) return;
    const former = address;
    address = URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
    picture.onload = () => former && URL.revokeObjectURL(former);
    picture.src = address;
  };
  const count = () => {
    const [place, all] = [model.get("place"), model.get("count")];
    slider.max = all - 1;
    slider.value = place;
    output.textContent = picture.alt = `${name}: slice ${place + 1} of ${all}`;
    slider.setAttribute("aria-label", name);
  };
  const point = (event) => {
    const box = picture.getBoundingClientRect();
    send({ at: [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height] });
  };
  picture.addEventListener("pointerdown", (event) => {
    picture.focus();
    picture.setPointerCapture(event.pointerId);
    if (event.button === 0) point(event);
  });
  picture.addEventListener("pointermove", (event) => {
    if (event.buttons & 1) point(event);
    if (event.buttons & 2) send({ window: [event.movementX, event.movementY] });
  });
  picture.addEventListener("contextmenu", (event) => event.preventDefault());
  picture.addEventListener("wheel", (event) => {
    if (document.activeElement !== picture) return;
    event.preventDefault();
    send({ step: Math.sign(event.deltaY) });
  }, { passive: false });
  picture.addEventListener("keydown", (event) => {
    const step = { ArrowUp: -1, PageUp: -1, ArrowDown: 1, PageDown: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    send({ step });
  });
  // Lab's notebook would keep the slider from answering to arrow keys.
  frame.addEventListener("keydown", (event) => event.stopPropagation());
  slider.addEventListener("input", () => send({ slice: Number(slider.value) }));
  model.on("change:picture", show);
  model.on("change:place change:count", count);
  model.on("change:answered", answer);
  show();
  count();
  return () => {
    model.off("change:picture", show);
    model.off("change:place change:count", count);
    model.off("change:answered", answer);
    if (address) URL.revokeObjectURL(address);
  };
}

export default { render };
