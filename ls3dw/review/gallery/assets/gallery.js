"use strict";
/* The page: which faces are on it, which one is marked, and what the keys do. data.js calls `gallery.start`. */

const PAGE = 60;
const YAW = { "0-30": [0, 30], "30-60": [30, 60], "60-90": [60, 90] };
const LAYER_KEYS = { 1: "annotation", 2: "flat", 3: "deep", l: "lines" };
const VERDICT_KEYS = { a: "accept", r: "reject", w: "annotation wrong", p: "prediction wrong" };
const SORTS = [["nme", "NME"], ["yaw", "|yaw|"], ["confidence", "confidence"], ["id", "id"], ["frame", "frame"]];

/** @param {string} id @returns {any} */
const get = (id) => document.getElementById(id);

/** @param {number | null | undefined} value @param {number} digits @param {string} unit */
const told = (value, digits, unit) => (value == null ? "–" : `${value.toFixed(digits)}${unit}`);

const gallery = {
  /** @type {any} what Python says of the gallery */ head: null,
  /** @type {any} columns, one value a face */ faces: null,
  /** @type {Decisions} */ decisions: null,
  /** @type {Turntable} */ turntable: null,
  /** @type {number[]} faces that pass the filters, in order */ order: [],
  /** place of the marked face in `order` */ at: 0,
  /** at full size: the whole picture, or the face alone */ whole: true,
  /** @type {Map<number, Int16Array>} */ chunks: new Map(),
  /** @type {Map<number, (() => void)[]>} what waits for a chunk */ waiting: new Map(),

  /** Begin, when data.js is there. @param {any} head @param {any} faces */
  start(head, faces) {
    this.head = head;
    this.faces = faces;
    this.decisions = new Decisions(`ls3dw:${head.manifest}:${head.version}:${head.gallery}`);
    this.turntable = new Turntable(get("turn"));
    document.title = `${head.title} – ${head.dataset} ${head.version}`;
    document.body.classList.toggle("texts", !head.pictures);
    get("title").textContent = head.title;
    const shown = head.shown < head.total ? `${head.shown} of ${head.total}` : `${head.total}`;
    const what = [head.dataset, `version ${head.version}`, ...head.filters, `${shown} ${head.pictures ? "faces" : "entries"}`];
    get("about").textContent = what.join(" · ");
    this.fillControls();
    this.listen();
    this.arrange();
  },

  /** Take a chunk of points. @param {number} number @param {string} packed */
  points(number, packed) {
    this.chunks.set(number, unpack(packed));
    for (const then of this.waiting.get(number) ?? []) then();
    this.waiting.delete(number);
  },

  /** Have a face's points, now or when their script has come. @param {number} face @param {(p: Points) => void} then */
  withPoints(face, then) {
    const { chunk, steps } = this.head;
    const number = Math.floor(face / chunk);
    const give = () => then(pointsOf(this.chunks.get(number), face % chunk, steps));
    if (this.chunks.has(number)) return give();
    if (this.waiting.has(number)) return this.waiting.get(number).push(give);
    this.waiting.set(number, [give]);
    const script = element("script");
    script.src = `data-${String(number).padStart(3, "0")}.js`;
    document.head.append(script);
  },

  fillControls() {
    const { faces, head } = this;
    for (const name of [...new Set(faces.source.slice(0, head.shown))].sort()) get("source").append(new Option(name, name));
    const sorts = head.pictures ? SORTS : [["id", "id"], ["reason", "reason"]];
    for (const [name, label] of sorts) get("sort").append(new Option(label, name));
    const kinds = new Set(faces.source.map((name) => head.compared[name]));
    // What the NME compares is shown at first; where both occur, both.
    if (!kinds.has("2d")) get("layer-flat").checked = false;
    if (!kinds.has("3d")) get("layer-deep").checked = false;
    get("who").value = recall("ls3dw:who");
  },

  /** @param {number} face */
  number(face) {
    const { head, faces } = this;
    if (!head.label || head.label === "NME" || head.label === "confidence") return "";
    return `${head.label} ${head.percent ? told(100 * faces.score[face], 1, " %") : told(faces.score[face], 2, "")}`;
  },

  /** @param {number} face @returns {string[]} */
  facts(face) {
    const { faces } = this;
    if (!this.head.pictures) return [faces.reason[face], faces.detail[face]];
    const percent = faces.nme[face] == null ? null : 100 * faces.nme[face];
    const facts = [
      `NME ${told(percent, 2, " %")}`, `yaw ${told(faces.yaw[face], 0, "°")}`,
      `conf. ${told(faces.confidence[face], 2, "")}`, this.number(face), faces.broken[face] ? "broken frame" : "",
    ];
    return facts.filter(Boolean);
  },

  /** @param {number} face */
  describe(face) {
    const decision = this.decisions.of(this.faces.id[face]);
    return [this.faces.id[face], ...this.facts(face), decision.verdict, decision.note && "with a note"].filter(Boolean).join(", ");
  },

  /** @param {number} face */
  wanted(face) {
    const { faces } = this;
    const decision = this.decisions.of(faces.id[face]);
    const find = get("find").value.trim().toLowerCase();
    const verdict = get("verdict").value;
    const bin = YAW[get("yaw").value];
    const turned = Math.abs(faces.yaw?.[face] ?? NaN);
    return (!find || `${faces.id[face]}\n${decision.note}`.toLowerCase().includes(find))
      && (!get("source").value || faces.source[face] === get("source").value)
      && (!bin || ((bin[0] ? turned > bin[0] : turned >= 0) && turned <= bin[1]))
      && (!verdict || (verdict === "none" ? !decision.verdict : verdict === "note" ? !!decision.note : decision.verdict === verdict));
  },

  /** Filter and sort. @param {boolean} stay the marked face stays marked if it is still there */
  arrange(stay = true) {
    const { faces, head } = this;
    const marked = this.order[this.at];
    const order = Array.from({ length: head.shown }, (_, face) => face).filter((face) => this.wanted(face));
    const by = get("sort").value;
    if (by) {
      const key = (face) => (by === "yaw" && faces.yaw[face] != null ? Math.abs(faces.yaw[face]) : faces[by][face]);
      order.sort((a, b) => compare(key(a), key(b)) || a - b);
    }
    this.order = get("reverse").checked ? order.reverse() : order;
    this.at = stay ? Math.max(0, this.order.indexOf(marked)) : 0;
    this.show();
  },

  get page() {
    return Math.floor(this.at / PAGE);
  },

  /** Draw the page of the marked face. @param {boolean} focus */
  show(focus = false) {
    const start = this.page * PAGE;
    get("grid").replaceChildren(...this.order.slice(start, start + PAGE).map((face) => this.tile(face)));
    this.drawn = this.page;
    get("empty").hidden = this.order.length > 0;
    const pages = Math.max(1, Math.ceil(this.order.length / PAGE));
    get("page").textContent = `page ${this.page + 1} of ${pages}`;
    get("page-back").disabled = this.page === 0;
    get("page-on").disabled = this.page + 1 >= pages;
    this.mark(this.at, focus);
    this.count();
  },

  /** @param {number} face */
  tile(face) {
    const { faces, head } = this;
    const button = element("button", "", "tile");
    button.type = "button";
    button.dataset.face = String(face);
    if (head.pictures) button.append(this.picture(face));
    const caption = element("span", "", "caption");
    caption.append(named(faces.id[face]), ...this.facts(face).flatMap((fact) => [element("span", fact), " "]));
    button.append(caption, element("span", "", "badge"));
    const item = element("li");
    item.append(button);
    this.badge(button, face);
    return item;
  },

  /** @param {number} face */
  picture(face) {
    const [zoom, x, y] = this.faces.view[face];
    const picture = tilePicture(face, this.head.tile, `Face ${this.faces.id[face]} with its landmarks`);
    this.withPoints(face, (points) => {
      picture.append(...layers(points, this.head.lines, ([px, py]) => [zoom * px + x, zoom * py + y]));
    });
    return picture;
  },

  /** Show a face's verdict on its tile. @param {HTMLElement} button @param {number} face */
  badge(button, face) {
    const { verdict, note } = this.decisions.of(this.faces.id[face]);
    const kind = verdict ? `is-${verdict.replace(" ", "-")}` : "";
    button.className = ["tile", kind, this.order[this.at] === face ? "current" : ""].filter(Boolean).join(" ");
    button.lastChild.textContent = [verdict, note && "✎"].filter(Boolean).join(" ");
    button.setAttribute("aria-label", this.describe(face));
  },

  /** @returns {HTMLElement | null} the tile of a face, if it is on the page */
  tileOf(face) {
    return document.querySelector(`[data-face="${face}"]`);
  },

  /** Mark a face by its place in the order. @param {number} at @param {boolean} focus */
  mark(at, focus = true) {
    if (!this.order.length) return;
    this.at = Math.max(0, Math.min(at, this.order.length - 1));
    if (this.page !== this.drawn) return this.show(focus);
    for (const old of document.querySelectorAll(".tile")) {
      old.classList.remove("current");
      old.removeAttribute("aria-current");
      old.tabIndex = -1;
    }
    const tile = this.tileOf(this.order[this.at]);
    tile.classList.add("current");
    tile.setAttribute("aria-current", "true");
    tile.tabIndex = 0;
    if (get("zoom").open) this.zoom();
    else if (focus) tile.focus();
  },

  /** How many faces a row of the grid has. */
  get across() {
    const tiles = [...document.querySelectorAll(".tile")];
    const top = tiles[0]?.getBoundingClientRect().top;
    return Math.max(1, tiles.filter((tile) => tile.getBoundingClientRect().top === top).length);
  },

  count() {
    const { faces, head, decisions } = this;
    let judged = 0;
    for (let face = 0; face < head.shown; face += 1) judged += decisions.of(faces.id[face]).verdict ? 1 : 0;
    this.say(decisions.kept ? `${judged} of ${head.shown} judged` : "This browser keeps nothing here: export before you close.");
  },

  /** @param {string} text */
  say(text) {
    get("status").textContent = text;
  },
};

/** Write an id so that lines break at its slashes. @param {string} id */
function named(id) {
  const name = element("b");
  for (const part of id.split(/(?<=[/])/)) name.append(part, element("wbr"));
  return name;
}

/** Order numbers and text, what is missing last. */
function compare(a, b) {
  if (a == null || b == null) return (a == null ? 1 : 0) - (b == null ? 1 : 0);
  return a < b ? -1 : a > b ? 1 : 0;
}

/** @param {string} key @returns {string} what the browser keeps, or nothing */
function recall(key) {
  try {
    return localStorage.getItem(key) ?? "";
  } catch {
    return "";
  }
}
