
"use strict";
// Narrows pictures and tables to a window of time and to what was asked for. All data is in the document's attributes;
// nothing is made of text, and nothing is fetched.
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 15e3, 3e4, 6e4, 12e4, 3e5, 6e5, 9e5, 18e5, 36e5,
    72e5, 108e5, 216e5, 432e5, 864e5];
  const DAY = 864e5, MOST_STEPS = 7, SHORTEST = 20;
  const all = (selector) => Array.from(document.querySelectorAll(selector));
  const origin = Number(document.body.dataset.from), length = Number(document.body.dataset.length);
  const controls = document.getElementById("controls"), count = document.getElementById("count");
  const words = document.getElementById("words"), severity = document.getElementById("severity");
  const plots = all(".plot"), axes = all(".axis");
  const left = Number(plots[0].getAttribute("x")), width = Number(plots[0].getAttribute("width"));
  const marks = all(".plot [data-at]").map((element) => {
    const y = element.getAttribute("transform").split(" ")[1];
    return { element, at: Number(element.dataset.at), y };
  });
  const bars = all(".plot [data-from]").map((element) => (
    { element, from: Number(element.dataset.from), to: Number(element.dataset.to) }));
  const rows = all("#moments tbody tr").map((element) => ({
    element, at: Number(element.dataset.at), kind: element.dataset.kind, severity: Number(element.dataset.severity),
    text: element.textContent.toLowerCase(),
  }));
  const kinds = all("#kinds input");
  // Kinds of which there is nothing need no box.
  const present = new Set(rows.map((row) => row.kind));
  for (const box of kinds) box.parentElement.hidden = !present.has(box.value);

  let from = 0, to = length;
  const x = (at) => Math.min(Math.max((at - from) / (to - from) * width, -40), width + 40);
  const round = (number) => Math.round(number * 100) / 100;

  function drawAxis(axis) {
    const size = to - from;
    const step = STEPS.find((step) => size / step <= MOST_STEPS) || DAY * Math.ceil(size / DAY / MOST_STEPS);
    const lines = [];
    for (let at = Math.ceil((origin + from) / step) * step; at <= origin + to; at += step) {
      const place = round(left + x(at - origin));
      const line = document.createElementNS(SVG, "path"), label = document.createElementNS(SVG, "text");
      line.setAttribute("d", `M${place} 22V${axis.dataset.height}`);
      label.setAttribute("x", place);
      label.setAttribute("y", 15);
      const time = new Date(at).toISOString();
      label.textContent = step < 1e3 ? time.slice(11, 23) : step < DAY ? time.slice(11, 19) : time.slice(0, 10);
      lines.push(line, label);
    }
    axis.replaceChildren(...lines);
  }

  function draw() {
    for (const mark of marks) mark.element.setAttribute("transform", `translate(${round(x(mark.at))} ${mark.y}`);
    for (const bar of bars) {
      const begin = x(bar.from);
      bar.element.setAttribute("x", round(begin));
      bar.element.setAttribute("width", round(Math.max(x(bar.to) - begin, 3)));
    }
    axes.forEach(drawAxis);
  }

  function filter() {
    const wanted = new Set(kinds.filter((box) => box.checked).map((box) => box.value));
    const least = Number(severity.value);
    const parts = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    // What an administrator did days later is on no axis, and still belongs to all of the time.
    const whole = from === 0 && to === length;
    let shown = 0;
    for (const row of rows) {
      const fits = (whole || row.at >= from && row.at <= to) && wanted.has(row.kind) && row.severity >= least
        && parts.every((part) => row.text.includes(part));
      row.element.hidden = !fits;
      shown += fits;
    }
    count.textContent = `${shown} of ${rows.length} moments`;
  }

  function show(newFrom, newTo) {
    const size = Math.min(Math.max(newTo - newFrom, SHORTEST), length);
    from = Math.min(Math.max(newFrom, 0), length - size);
    to = from + size;
    draw();
    filter();
  }

  // Around a place that stays where it is.
  const zoom = (factor, at) => show(at - (at - from) * factor, at + (to - at) * factor);
  const actions = {
    in: () => zoom(0.5, (from + to) / 2),
    out: () => zoom(2, (from + to) / 2),
    earlier: () => show(from - (to - from) / 2, to - (to - from) / 2),
    later: () => show(from + (to - from) / 2, to + (to - from) / 2),
    all: () => show(0, length),
  };
  const keys = { "+": "in", "=": "in", "-": "out", ArrowLeft: "earlier", ArrowRight: "later", 0: "all", Escape: "all" };

  for (const button of all("#controls button")) button.addEventListener("click", actions[button.dataset.do]);
  for (const element of [words, severity, ...kinds]) element.addEventListener("input", filter);

  for (const plot of plots) {
    const picture = plot.ownerSVGElement;
    const place = (event) => {
      const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(picture.getScreenCTM().inverse());
      return Math.min(Math.max((point.x - left) / width, 0), 1);
    };
    const time = (part) => from + part * (to - from);
    picture.tabIndex = 0;
    picture.addEventListener("keydown", (event) => {
      const action = keys[event.key];
      if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      actions[action]();
    });
    // Marks are only hit where they are: a sheet behind them takes the mouse.
    const sheet = document.createElementNS(SVG, "rect");
    sheet.setAttribute("width", width);
    sheet.setAttribute("height", plot.getAttribute("height"));
    sheet.setAttribute("fill-opacity", 0);
    plot.prepend(sheet);
    let begin = null, selection = null;
    plot.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || event.pointerType === "touch") return;
      begin = place(event);
      plot.setPointerCapture(event.pointerId);
      selection = document.createElementNS(SVG, "rect");
      selection.setAttribute("class", "selection");
      selection.setAttribute("height", plot.getAttribute("height"));
      plot.append(selection);
    });
    plot.addEventListener("pointermove", (event) => {
      if (begin === null) return;
      const end = place(event);
      selection.setAttribute("x", Math.min(begin, end) * width);
      selection.setAttribute("width", Math.abs(end - begin) * width);
    });
    const finish = (event) => {
      if (begin === null) return;
      const ends = [begin, place(event)].sort((one, other) => one - other);
      selection.remove();
      begin = selection = null;
      // A click is no selection.
      if (event.type === "pointerup" && (ends[1] - ends[0]) * width > 4) show(time(ends[0]), time(ends[1]));
    };
    plot.addEventListener("pointerup", finish);
    plot.addEventListener("pointercancel", finish);
    plot.addEventListener("dblclick", actions.all);
    picture.addEventListener("wheel", (event) => {
      // The wheel alone scrolls the page.
      if (!event.ctrlKey) return;
      event.preventDefault();
      zoom(event.deltaY > 0 ? 1.25 : 0.8, time(place(event)));
    }, { passive: false });
  }

  // A reference to a row opens what it is in.
  const open = () => {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    const around = target && target.closest("details");
    if (around && !around.open) {
      around.open = true;
      target.scrollIntoView();
    }
  };
  addEventListener("hashchange", open);
  open();

  // On paper everything is open, and all of the time is shown.
  let before = null;
  addEventListener("beforeprint", () => {
    before = { from, to, closed: all("details:not([open])") };
    for (const element of before.closed) element.open = true;
    show(0, length);
  });
  addEventListener("afterprint", () => {
    if (!before) return;
    for (const element of before.closed) element.open = false;
    show(before.from, before.to);
    before = null;
  });

  controls.hidden = false;
  filter();
})();
