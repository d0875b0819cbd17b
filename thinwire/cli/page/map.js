// Who took part when: clients downwards, rounds (or stretches of rounds) to the right, on a canvas.
const PARTS = [
  ["replied", "--accent"],
  ["failed", "--bad"],
  ["absent", "--absent"],
];

const FAINTEST = 0.25; // opacity of a stretch of rounds in which a client was hardly asked

function unpacked(text, size) {
  const raw = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return size === 2 ? new Uint16Array(raw.buffer) : raw;
}

class Participation {
  constructor(holder, clients) {
    const map = clients.map;
    Object.assign(this, { map, names: clients.name, count: clients.name.length, cell: null });
    for (const plane of ["asked", "replied", "failed"]) this[plane] = map[plane] ? unpacked(map[plane], map.size) : null;
    this.canvas = element("canvas", { tabindex: "0", role: "group", "aria-roledescription": "map" });
    this.canvas.setAttribute("aria-label", "Who took part when; arrow keys walk over clients and rounds");
    this.scroll = element("div", { class: "scroll" }, this.canvas);
    this.tip = element("div", { class: "tip", hidden: true });
    const kinds = [["replied", "answered"], ["failed", "failed"], ["absent", "absent"], ["idle", "not asked"]];
    const keys = element("div", { class: "keys" }, kinds.map(([kind, word]) => element("span", {}, swatch(kind), word)));
    if (map.width > 1) keys.append(element("span", {}, "the fainter, the less often asked"));
    const title = `Participation${map.width > 1 ? `, in stretches of ${map.width} rounds` : ""}`;
    this.card = element("div", { class: "card map" }, element("h3", {}, title), keys, this.scroll, this.tip);
    holder.append(this.card);
    this.canvas.addEventListener("pointermove", (event) => this.follow(event));
    this.canvas.addEventListener("pointerdown", (event) => this.follow(event));
    this.canvas.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && this.show(null));
    this.canvas.addEventListener("blur", () => this.show(null));
    this.canvas.addEventListener("keydown", (event) => this.walk(event));
    new ResizeObserver(() => this.scroll.clientWidth !== this.width && this.draw()).observe(this.scroll);
    this.draw();
  }

  at(row, column) {
    const place = row * this.map.columns + column;
    const [asked, replied, failed] = [this.asked, this.replied, this.failed].map((plane) => (plane ? plane[place] : 0));
    return { asked, replied, failed, absent: Math.max(0, asked - replied - failed) };
  }

  draw() {
    this.width = this.scroll.clientWidth;
    if (!this.width) return;
    const { canvas, count, map } = this;
    this.tall = count <= 25 ? 18 : count <= 60 ? 10 : count <= 200 ? 5 : count <= 400 ? 3 : 2;
    const gap = this.tall > 8 ? 2 : this.tall > 3 ? 1 : 0;
    const height = count * this.tall + 22;
    const ratio = Math.min(2, window.devicePixelRatio || 1);
    canvas.width = Math.round(this.width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.height = `${height}px`;
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const colours = getComputedStyle(document.documentElement);
    const colour = (name) => colours.getPropertyValue(name).trim();
    pen.font = `12px ${colour("--sans")}`;
    const longest = this.tall < 12 ? -12 : this.names.reduce((most, name) => Math.max(most, pen.measureText(name).width), 0);
    this.left = Math.min(Math.round(this.width * 0.3), Math.ceil(longest) + 12);
    const step = (this.step = (this.width - this.left) / map.columns);
    const space = step > 5 ? 1 : 0;
    pen.textBaseline = "middle";
    for (let row = 0; row < count; row += 1) {
      const y = row * this.tall;
      if (this.left) {
        pen.fillStyle = colour("--quiet");
        pen.fillText(this.fitting(pen, this.names[row]), 0, y + this.tall / 2, this.left - 10);
      }
      pen.fillStyle = colour("--sunk");
      pen.fillRect(this.left, y, this.width - this.left, this.tall - gap);
    }
    const most = this.asked.reduce((a, b) => Math.max(a, b), 1);
    for (const [part, name] of PARTS) {
      pen.fillStyle = colour(name);
      for (let row = 0; row < count; row += 1) {
        for (let column = 0; column < map.columns; column += 1) {
          if (!this.asked[row * map.columns + column]) continue;
          const cell = this.at(row, column);
          if (!cell[part]) continue;
          const before = part === "replied" ? 0 : part === "failed" ? cell.replied : cell.replied + cell.failed;
          const room = step - space;
          const x = this.left + column * step + (before / cell.asked) * room;
          const wide = Math.max((cell[part] / cell.asked) * room, part === "failed" ? 1 : 0);
          pen.globalAlpha = FAINTEST + (1 - FAINTEST) * (cell.asked / most);
          pen.fillRect(x, row * this.tall, wide + (space || map.width > 1 ? 0 : 0.4), this.tall - gap);
        }
      }
    }
    pen.globalAlpha = 1;
    pen.fillStyle = colour("--quiet");
    const y = count * this.tall + 13;
    pen.fillText(whole(map.first), this.left, y);
    pen.textAlign = "right";
    pen.fillText(`round ${whole(map.last)}`, this.width, y);
    this.picture = element("canvas", { width: canvas.width, height: canvas.height });
    this.picture.getContext("2d").drawImage(canvas, 0, 0);
    this.outline();
  }

  fitting(pen, name) {
    let text = name;
    while (text.length > 3 && pen.measureText(text).width > this.left - 10) text = `${text.slice(0, -2)}…`;
    return text;
  }

  // The cell in question, over the picture as it was drawn.
  outline() {
    if (!this.picture) return;
    const pen = this.canvas.getContext("2d");
    pen.save();
    pen.resetTransform();
    pen.drawImage(this.picture, 0, 0);
    pen.restore();
    if (!this.cell) return;
    pen.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue("--ink").trim();
    pen.lineWidth = 1.5;
    pen.strokeRect(this.left + this.cell[1] * this.step, this.cell[0] * this.tall, Math.max(3, this.step), this.tall);
  }

  follow(event) {
    const box = this.canvas.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left - this.left) / this.step);
    const row = Math.floor((event.clientY - box.top) / this.tall);
    const inside = row >= 0 && row < this.count && column >= 0 && column < this.map.columns;
    this.show(inside ? [row, column] : null);
  }

  walk(event) {
    const moves = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
    if (event.key === "Escape") return this.show(null);
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    const [row, column] = this.cell ? [this.cell[0] + move[0], this.cell[1] + move[1]] : [0, 0];
    const bound = (value, most) => Math.max(0, Math.min(most - 1, value));
    this.show([bound(row, this.count), bound(column, this.map.columns)]);
    say(this.tip.innerText.replace(/\s*\n\s*/g, ", "));
  }

  show(cell) {
    const moved = String(cell) !== String(this.cell);
    this.cell = cell;
    if (moved) this.outline();
    this.tip.hidden = cell === null;
    if (cell === null) return;
    const [row, column] = cell;
    const first = this.map.first + column * this.map.width;
    const last = Math.min(this.map.last, first + this.map.width - 1);
    const rounds = first === last ? `round ${whole(first)}` : `rounds ${whole(first)} to ${whole(last)}`;
    this.tip.replaceChildren(
      element("strong", {}, this.names[row]),
      element("span", {}, `${rounds}: ${this.words(this.at(row, column), first === last)}`),
    );
    const box = this.canvas.getBoundingClientRect();
    const frame = this.card.getBoundingClientRect();
    place(this.tip, this.card, box.left - frame.left + this.left + (column + 0.5) * this.step, box.top - frame.top + (row + 1) * this.tall + 8);
  }

  words(cell, single) {
    if (!cell.asked) return "not asked";
    if (single) return cell.replied ? "answered" : cell.failed ? "asked, and failed" : "asked, and absent";
    const parts = [["answered", cell.replied], ["failed", cell.failed], ["absent", cell.absent]];
    return `asked ${cell.asked} times; ${parts.filter(([, times]) => times).map(([word, times]) => `${times} ${word}`).join(", ")}`;
  }
}
