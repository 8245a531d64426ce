// One hour as lines over time, in an SVG that is drawn anew with each answer.
//
//     new Chart(figure, [{name, list}], format) ─▶ draw(history)
//
// Rule: one unit of the SVG is one pixel, so that its text is as large as all other text.

import {word} from "./words.js";
import {clock} from "./figures.js";

const SVG = "http://www.w3.org/2000/svg";
const [ABOVE, BELOW, LEFT, RIGHT] = [8, 20, 60, 4];
const SPAN_S = 3600;

export class Chart {
  /** lines: of each the word for it, or null, and its list in the history; format: of a figure. */
  constructor(figure, lines, format) {
    this.svg = figure.querySelector("svg");
    this.lines = lines;
    this.format = format;
    this.history = null;
    this.pointed = null;
    this.legend = lines.map(({list}) => {
      const entry = figure.querySelector(".legend").appendChild(document.createElement("span"));
      entry.className = list;
      return entry;
    });
    new ResizeObserver(() => this.redraw()).observe(this.svg);
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.point(null));
  }

  draw(history) {
    this.history = history;
    this.redraw();
  }

  redraw() {
    const {width, height} = this.svg.getBoundingClientRect();
    if (this.history === null || width === 0) return;
    this.width = width;
    this.bottom = height - BELOW;
    const figures = this.lines.flatMap(({list}) => this.history[list]);
    this.most = roundedUp(figures.reduce((most, figure) => Math.max(most, figure), 1));
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.replaceChildren(...this.grid(), ...this.paths());
    this.mark();
  }

  *grid() {
    for (const part of [0, 0.5, 1]) {
      const y = this.y(part * this.most);
      yield drawn("line", {class: "grid", x1: LEFT, x2: this.width - RIGHT, y1: y, y2: y});
      yield drawn("text", {x: LEFT - 6, y: y + 4, "text-anchor": "end"}, this.format(part * this.most));
    }
    for (const minutes of [60, 45, 30, 15, 0]) {
      const anchor = minutes === 0 ? "end" : "middle";
      const text = minutes === 0 ? word("now") : `−${minutes} ${word("minute")}`;
      yield drawn("text", {x: this.x(minutes * 60), y: this.bottom + 15, "text-anchor": anchor}, text);
    }
  }

  *paths() {
    for (const {list} of this.lines) {
      const figures = this.history[list];
      if (figures.length === 0) continue;
      const point = (figure, index) => `${this.x(this.ago(index)).toFixed(1)} ${this.y(figure).toFixed(1)}`;
      yield drawn("path", {class: `line ${list}`, d: `M${figures.map(point).join("L")}`});
    }
  }

  /** What the pointer is at, or the newest, into the legend. */
  mark() {
    const length = this.history[this.lines[0].list].length;
    const chosen = this.pointed === null ? null : this.nearest(this.pointed, length);
    for (const [index, {name, list}] of this.lines.entries()) {
      const figure = this.history[list][chosen ?? length - 1] ?? 0;
      const at = chosen !== null && index === 0 ? `${clock(this.history.until - this.ago(chosen))}  ` : "";
      this.legend[index].textContent = `${at}${name === null ? "" : `${word(name)} `}${this.format(figure)}`;
    }
    this.svg.setAttribute("aria-label", this.legend.map((entry) => entry.textContent).join(", "));
    this.svg.querySelector(".pointer")?.remove();
    if (chosen === null) return;
    const x = this.x(this.ago(chosen));
    this.svg.append(drawn("line", {class: "pointer", x1: x, x2: x, y1: ABOVE, y2: this.bottom}));
  }

  point(event) {
    this.pointed = event === null ? null : event.offsetX;
    if (this.history !== null) this.mark();
  }

  nearest(x, length) {
    const ago = ((this.width - RIGHT - x) / (this.width - LEFT - RIGHT)) * SPAN_S;
    const index = length - 1 - Math.round(ago / this.history.step_s);
    return index >= 0 && index < length ? index : null;
  }

  /** Seconds from the end of a step to the end of the last. */
  ago(index) {
    return (this.history[this.lines[0].list].length - 1 - index) * this.history.step_s;
  }

  x(ago) {
    return this.width - RIGHT - (ago / SPAN_S) * (this.width - LEFT - RIGHT);
  }

  y(figure) {
    return this.bottom - (figure / this.most) * (this.bottom - ABOVE);
  }
}

/** The next of 1, 2, 5, 10, 20, … */
function roundedUp(figure) {
  const power = 10 ** Math.floor(Math.log10(figure));
  return [1, 2, 5, 10].find((digit) => digit * power >= figure) * power;
}

function drawn(kind, attributes, text = "") {
  const element = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return element;
}
