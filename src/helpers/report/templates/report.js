// What a report does where scripts run: figures are drawn shortly before they come into view, with the
// browser's own menus. Without scripts, and in print, a still picture of each stands in its place.
(function () {
  "use strict";
  document.documentElement.classList.add("js");
  var print = location.hash.slice(1, 6) === "print";
  if (location.hash === "#print-short") { document.documentElement.classList.add("short"); }

  if (!window.Plotly) { return; }
  var NARROW = 600, SHOW = {mode: "immediate", frame: {duration: 0, redraw: true}, transition: {duration: 0}};

  function Live(figure) {
    var live = this;
    this.figure = figure;
    this.canvas = figure.querySelector(".canvas");
    this.controls = figure.querySelector(".controls");
    this.told = JSON.parse(figure.querySelector("script").textContent);
    this.byName = {};
    this.told.frames.forEach(function (frame) { live.byName[frame.name] = frame; });
    this.chosen = {};
  }
  Live.prototype.isNarrow = function () { return this.figure.clientWidth < NARROW; };
  Live.prototype.draw = function () {
    var live = this, told = this.told, narrow = this.isNarrow();
    if (this.drawn === narrow) { return; }
    var first = this.drawn === undefined;
    this.drawn = narrow;
    this.fitted = {scene: 1, scene2: 1};
    var layout = JSON.parse(JSON.stringify(narrow ? told.narrow : told.layout));
    this.canvas.style.height = layout.height + "px";
    // Plotly writes into what it is given; and a phone has a figure's scale of colours beneath it.
    var data = JSON.parse(JSON.stringify(told.data)), frames = told.frames;
    if (narrow && layout.scene) {
      frames = JSON.parse(JSON.stringify(frames));
      [data].concat(frames.map(function (frame) { return frame.data || []; })).forEach(layFlat);
    }
    Plotly.newPlot(this.canvas, {data: data, layout: layout, config: makeConfig(this), frames: frames}).then(function () {
      if (first) { live.wire(); }
      // A new plot has forgotten who listens.
      live.canvas.on("plotly_hover", minus);
      live.canvas.on("plotly_afterplot", function () { live.fit(); });
      pairScenes(live.canvas);
      live.fit();
      Object.keys(live.chosen).forEach(function (place) { live.choose(Number(place), live.chosen[place]); });
    });
  };
  Live.prototype.wire = function () {
    var canvas = this.canvas;
    this.buildMenus(this.told.menus);
    // The wheel belongs to the page until the figure is clicked or reached by the keyboard.
    var awake = false;
    canvas.addEventListener("wheel", function (event) { if (!awake) { event.stopPropagation(); } }, true);
    canvas.addEventListener("pointerdown", function () { awake = true; });
    canvas.addEventListener("focusin", function () { awake = true; });
    canvas.addEventListener("pointerleave", function () { awake = false; });
    canvas.addEventListener("focusout", function () { awake = false; });
  };
  Live.prototype.buildMenus = function (menus) {
    var live = this;
    this.controls.textContent = "";
    this.selects = menus.map(function (menu, place) {
      if (menu.kind === "buttons") {
        var row = document.createElement("span");
        row.className = "sides";
        menu.options.forEach(function (option) {
          var button = document.createElement("button");
          button.type = "button";
          button.textContent = option.label;
          button.addEventListener("click", function () { live.run(option); });
          row.appendChild(button);
        });
        live.controls.appendChild(row);
        return null;
      }
      var label = document.createElement("label"), select = document.createElement("select");
      label.appendChild(document.createElement("span"));
      label.appendChild(select);
      live.controls.appendChild(label);
      live.fill(select, menu.options.map(function (option) { return option.label; }), menu.active);
      select.addEventListener("change", function () { live.choose(place, select.selectedIndex); });
      return select;
    });
  };
  // "model: planted" is the choice "planted" of the menu "model".
  Live.prototype.fill = function (select, labels, active) {
    var parts = labels.map(function (text) { var at = text.indexOf(": "); return at < 0 ? ["", text] : [text.slice(0, at), text.slice(at + 2)]; });
    var named = parts.every(function (part) { return part[0] && part[0] === parts[0][0]; });
    select.previousSibling.textContent = named ? parts[0][0] : "shown";
    select.textContent = "";
    parts.forEach(function (part, place) { select.add(new Option(named ? part[1] : labels[place], place)); });
    select.selectedIndex = active;
    // Another name by which the frames' menus are told apart once options have gone.
    select.dataset.noun = select.previousSibling.textContent;
  };
  Live.prototype.choose = function (place, which) {
    var menu = this.told.menus[place], select = this.selects[place];
    if (this.frameMenus) { return this.show(this.frameMenus[place][1][which][1]); }
    var option = menu.options[which];
    if (option.method === "animate") { return this.show(option.args[0][0]); }
    this.chosen[place] = which;
    select.selectedIndex = which;
    return this.run(option);
  };
  Live.prototype.run = function (option) {
    var args = JSON.parse(JSON.stringify(this.drawn ? option.narrow : option.args));
    if (option.title) { this.entitle(option.title); }
    if (args[1] && args[1].height) { this.canvas.style.height = args[1].height + "px"; }
    return Plotly[option.method].apply(null, [this.canvas].concat(args));
  };
  Live.prototype.show = function (name) {
    var live = this, frame = this.byName[name];
    if (frame.title) { this.entitle(frame.title); }
    this.frameMenus = frame.menus;
    frame.menus.forEach(function (menu, place) {
      live.fill(live.selects[place], menu[1].map(function (choice) { return choice[0]; }), menu[0]);
    });
    return Plotly.animate(this.canvas, [name], SHOW);
  };
  // A body is drawn as large as the narrower side of its place allows, letters and all; then its reader may zoom.
  Live.prototype.fit = function () {
    var full = this.canvas._fullLayout, told = this.told.layout, fitted = this.fitted, update = {};
    ["scene", "scene2"].forEach(function (name) {
      if (!full[name]) { return; }
      var across = full[name].domain.x, ratio = Math.min(1, (across[1] - across[0]) * full._size.w / full._size.h);
      if (Math.abs(ratio - fitted[name]) < .01) { return; }
      fitted[name] = ratio;
      var zoom = told[name].aspectratio.x * ratio;
      update[name + ".aspectratio"] = {x: zoom, y: zoom, z: zoom};
    });
    if (Object.keys(update).length) { Plotly.relayout(this.canvas, update); }
  };
  function layFlat(traces) {
    traces.forEach(function (trace) {
      if (!trace.colorbar || !trace.colorbar.thickness) { return; }
      Object.assign(trace.colorbar, {orientation: "h", x: .5, xanchor: "center", y: 0, yanchor: "top", len: .9, thickness: 12});
      trace.colorbar.title = Object.assign({}, trace.colorbar.title, {side: "bottom"});
    });
  }
  Live.prototype.entitle = function (title) {
    this.figure.querySelector(".heading").textContent = title[0];
    this.figure.querySelector(".below").textContent = title[1];
  };
  // The whole figure as a file: wide, with its title.
  Live.prototype.save = function (format) {
    var title = this.figure.querySelector(".heading").textContent, below = this.figure.querySelector(".below").textContent;
    var layout = JSON.parse(JSON.stringify(this.canvas.layout)), room = 64;
    layout.title = {text: escape_(title) + "<br><sup>" + escape_(below) + "</sup>", x: 0, xanchor: "left", yref: "container", y: 1 - 12 / (layout.height + room), yanchor: "top"};
    layout.height += room;
    layout.margin.t += room;
    if (layout.legend && layout.legend.yref) { layout.legend.y = 1 - room / layout.height; }
    var name = title.replace(/[^A-Za-z0-9]+/g, "-").replace(/^-|-$/g, "").slice(0, 60);
    Plotly.downloadImage({data: this.canvas.data, layout: layout}, {format: format, filename: name || "segfair", scale: format === "png" ? 2 : 1, width: this.canvas.clientWidth, height: layout.height});
  };
  function escape_(text) { return text.replace(/&/g, "&amp;").replace(/</g, "&lt;"); }

  function makeConfig(live) {
    return Object.assign({}, CONFIG, {
      modeBarButtonsToRemove: ["toImage"],
      modeBarButtonsToAdd: ["png", "svg"].map(function (format) {
        return {
          name: "save-" + format, title: "Download plot as " + format.toUpperCase(),
          icon: format === "png" ? Plotly.Icons.camera : Plotly.Icons.disk,
          click: function () { live.save(format); }
        };
      })
    });
  }
  // plotly writes numbers with a hyphen.
  function minus(event) {
    var canvas = event && event.event && event.event.target && event.event.target.closest ? event.event.target.closest(".canvas") : null;
    (canvas || document).querySelectorAll(".hovertext text, .hovertext tspan").forEach(function (text) {
      if (!text.firstElementChild && /(^|[\s(])-\d/.test(text.textContent)) { text.textContent = text.textContent.replace(/(^|[\s(])-(?=\d)/g, "$1\u2212"); }
    });
  }
  // Two bodies side by side are seen from the same side.
  function pairScenes(canvas) {
    var busy = false;
    canvas.on("plotly_relayout", function (changes) {
      if (busy || !canvas.layout.scene2) { return; }
      var from = changes["scene2.camera"] && !changes["scene.camera"] ? "scene2" : "scene", to = from === "scene" ? "scene2" : "scene";
      if (!changes[from + ".camera"] || changes[to + ".camera"]) { return; }
      busy = true;
      var update = {};
      update[to + ".camera"] = changes[from + ".camera"];
      Plotly.relayout(canvas, update).then(function () { busy = false; });
    });
  }

  var lives = Array.prototype.map.call(document.querySelectorAll("figure.plot"), function (figure) { return new Live(figure); });
  function drawAll(wanted) { lives.forEach(function (live) { if (!wanted || wanted(live)) { live.draw(); } }); }
  function hasNoStill(live) { return !live.figure.querySelector(".still"); }
  window.addEventListener("beforeprint", function () { drawAll(hasNoStill); });
  if (print) { drawAll(hasNoStill); return; }
  if (!("IntersectionObserver" in window)) { drawAll(); return; }
  var observer = new IntersectionObserver(function (entries) {
    entries.forEach(function (entry) {
      if (!entry.isIntersecting) { return; }
      observer.unobserve(entry.target);
      lives.filter(function (live) { return live.figure === entry.target; })[0].draw();
    });
  }, {rootMargin: "800px"});
  lives.forEach(function (live) { live.canvas.style.height = (live.isNarrow() ? live.told.narrow : live.told.layout).height + "px"; observer.observe(live.figure); });
  window.addEventListener("resize", function () { lives.forEach(function (live) { if (live.drawn !== undefined) { live.draw(); } }); });
})();
