(function () {
  "use strict";
  // Long tables sort by a click on a column's head, or Enter on it, and can be filtered; without scripts they stay as they are.
  function read(cell) {
    var text = cell ? cell.textContent.trim() : "", number = parseFloat(text.replace(/−/g, "-").replace(/^[^\d.-]*/, ""));
    return cell && cell.classList.contains("num") && !isNaN(number) ? number : text.toLowerCase();
  }
  function compare(one, other) {
    if (typeof one === typeof other) { return one < other ? -1 : one > other ? 1 : 0; }
    return typeof one === "number" ? -1 : 1;  // what is not known comes last
  }
  document.querySelectorAll("table.data").forEach(function (table) {
    var body = table.tBodies[0], heads = table.tHead ? Array.prototype.slice.call(table.tHead.rows[0].cells) : [];
    if (!heads.length || body.rows.length < 8 || location.hash.slice(1, 6) === "print") { return; }
    heads.forEach(function (head, place) {
      var button = document.createElement("button");
      button.type = "button"; button.className = "sort"; button.textContent = head.textContent;
      head.textContent = ""; head.appendChild(button);
      button.addEventListener("click", function () {
        var down = head.getAttribute("aria-sort") === "ascending", rows = Array.prototype.slice.call(body.rows);
        heads.forEach(function (other) { other.removeAttribute("aria-sort"); });
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        rows.map(function (row) { return [read(row.cells[place]), row]; })
          .sort(function (a, b) { return (down ? -1 : 1) * compare(a[0], b[0]); })
          .forEach(function (pair) { body.appendChild(pair[1]); });
      });
    });
    var label = document.createElement("label"), input = document.createElement("input");
    label.className = "filter"; label.textContent = "Rows with ";
    input.type = "search"; input.placeholder = "words, such as liver sex";
    label.appendChild(input);
    table.parentNode.parentNode.insertBefore(label, table.parentNode);
    input.addEventListener("input", function () {
      var words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      Array.prototype.forEach.call(body.rows, function (row) {
        var text = row.textContent.toLowerCase();
        row.hidden = !words.every(function (word) { return text.indexOf(word) >= 0; });
      });
    });
  });
  // A link into something folded opens it.
  function open() {
    var target = location.hash.length > 1 ? document.getElementById(decodeURIComponent(location.hash.slice(1))) : null;
    for (var at = target; at; at = at.parentElement) { if (at.tagName === "DETAILS") { at.open = true; } }
    if (target) { target.scrollIntoView(); }
  }
  window.addEventListener("hashchange", open);
  // Words at the edge of what is wider than the screen, as long as there is more to the right.
  var boxes = document.querySelectorAll(".scroll, .jp-OutputArea-output");
  function hint() {
    boxes.forEach(function (box) {
      box.classList.toggle("more", box.scrollWidth - box.clientWidth - box.scrollLeft > 4);
    });
  }
  boxes.forEach(function (box) { box.addEventListener("scroll", hint, {passive: true}); });
  document.addEventListener("toggle", hint, true);
  ["load", "resize"].forEach(function (when) { window.addEventListener(when, hint); });
  hint();
})();
