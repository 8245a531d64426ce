// A table that is sorted, filtered and refreshed in place.
//
//     new Table(place, columns, key, actions) ─▶ show(items), filter(text)
//
// Rules:
//  1. A row stays its item's as long as the item is shown, and only texts that have changed are written: neither a
//     click nor a selection hits another item because of a refresh.
//  2. There are never more than SHOWN rows, and buttons lead to the others: there may be thousands of items.
//  3. All texts are set as text.

import {word} from "./words.js";

const SHOWN = 100;

export class Table {
  /**
   * columns: {name: a word, text(item), sort(item)?, number?, spare?}; spare ones are left out on a narrow screen.
   * key: of an item, one of its own.
   * actions: {name: a word, run(item), fits(item)?}, the buttons of a row.
   */
  constructor(place, columns, key, actions = []) {
    this.columns = columns;
    this.key = key;
    this.actions = actions;
    this.items = [];
    this.wanted = "";
    this.sorted = {column: columns[0], down: false};
    this.from = 0;
    this.rows = new Map();
    this.table = place.appendChild(document.createElement("table"));
    this.heads = this.table.createTHead().insertRow();
    this.body = this.table.createTBody();
    this.pager = place.appendChild(document.createElement("div"));
    this.pager.className = "pager";
    this.back = this.addTurn("‹", "previous", -SHOWN);
    this.where = this.pager.appendChild(document.createElement("span"));
    this.onward = this.addTurn("›", "next", SHOWN);
    this.nothing = place.appendChild(document.createElement("p"));
    this.nothing.className = "hint";
    for (const column of columns) this.addHead(column);
    if (actions.length) this.heads.appendChild(document.createElement("th"));
  }

  show(items) {
    this.items = items;
    this.draw();
  }

  filter(text) {
    this.wanted = text.trim().toLowerCase();
    this.from = 0;
    this.draw();
  }

  addHead(column) {
    const head = this.heads.appendChild(document.createElement("th"));
    head.scope = "col";
    head.className = classes(column);
    const button = head.appendChild(document.createElement("button"));
    button.type = "button";
    button.addEventListener("click", () => {
      // Names begin at their first, figures at their largest.
      const down = this.sorted.column === column ? !this.sorted.down : column.number === true;
      this.sorted = {column, down};
      this.from = 0;
      this.draw();
    });
  }

  addTurn(sign, name, by) {
    const button = this.pager.appendChild(document.createElement("button"));
    button.type = "button";
    button.textContent = sign;
    button.dataset.title = name;
    button.addEventListener("click", () => {
      this.from += by;
      this.draw();
    });
    return button;
  }

  draw() {
    const found = this.items.filter((item) => this.isWanted(item));
    this.sort(found);
    if (this.from >= found.length) this.from = Math.max(0, Math.ceil(found.length / SHOWN) - 1) * SHOWN;
    const shown = found.slice(this.from, this.from + SHOWN);
    const rows = new Map(shown.map((item) => [this.key(item), this.row(item)]));
    for (const [key, row] of this.rows) if (!rows.has(key)) row.remove();
    this.rows = rows;
    let next = this.body.firstChild;
    for (const row of rows.values()) {
      if (row === next) next = next.nextSibling;
      else this.body.insertBefore(row, next);
    }
    this.drawHeads();
    this.pager.hidden = found.length <= SHOWN;
    this.back.disabled = this.from === 0;
    this.onward.disabled = this.from + SHOWN >= found.length;
    write(this.where, `${this.from + 1}–${this.from + shown.length} / ${found.length}`);
    this.table.hidden = found.length === 0;
    this.nothing.hidden = found.length > 0;
    write(this.nothing, word("nothing"));
  }

  drawHeads() {
    for (const [index, column] of this.columns.entries()) {
      const head = this.heads.cells[index];
      const isSorted = this.sorted.column === column;
      write(head.firstChild, `${word(column.name)}${isSorted ? (this.sorted.down ? " ↓" : " ↑") : ""}`);
      head.setAttribute("aria-sort", isSorted ? (this.sorted.down ? "descending" : "ascending") : "none");
      head.hidden = column.isNeeded?.() === false;
    }
  }

  row(item) {
    const row = this.rows.get(this.key(item)) ?? this.newRow();
    row.item = item;
    for (const [index, column] of this.columns.entries()) {
      const cell = row.cells[index];
      write(cell, column.text(item));
      cell.hidden = column.isNeeded?.() === false;
      // For narrow screens, on which a row has no head above it.
      if (cell.dataset.head !== word(column.name)) cell.dataset.head = word(column.name);
    }
    for (const [index, {name, fits}] of this.actions.entries()) {
      const button = row.lastChild.children[index];
      write(button, word(name));
      button.hidden = fits !== undefined && !fits(item);
    }
    return row;
  }

  newRow() {
    const row = document.createElement("tr");
    for (const column of this.columns) row.insertCell().className = classes(column);
    if (this.actions.length) row.insertCell().className = "actions";
    for (const {run} of this.actions) {
      const button = row.lastChild.appendChild(document.createElement("button"));
      button.type = "button";
      button.addEventListener("click", () => run(row.item));
    }
    return row;
  }

  isWanted(item) {
    return this.wanted === "" || this.columns.some((column) => column.text(item).toLowerCase().includes(this.wanted));
  }

  sort(items) {
    const {column, down} = this.sorted;
    const by = column.sort ?? column.text;
    const sign = down ? -1 : 1;
    items.sort((one, other) => {
      const [a, b] = [by(one), by(other)];
      return a === b ? 0 : sign * (a < b ? -1 : 1);
    });
  }
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function classes(column) {
  return [column.number ? "number" : "", column.spare ? "spare" : ""].join(" ").trim();
}
