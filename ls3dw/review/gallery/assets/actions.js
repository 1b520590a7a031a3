"use strict";
/* What one can do on the page: judge, look closely, export; by keys, buttons or touch. Adds to `gallery`. */

Object.assign(gallery, {
  /** @param {string} what a verdict, "note" or "undo" */
  act(what) {
    const face = this.order[this.at];
    if (!this.head.pictures || face === undefined) return;
    const id = this.faces.id[face];
    if (what === "note") return this.note(id);
    if (what === "undo") return this.undo();
    this.decisions.change(id, { verdict: this.decisions.of(id).verdict === what ? "" : what });
    this.refresh(face);
    this.mark(this.at + 1);
  },

  undo() {
    const id = this.decisions.undo();
    if (id === null) return this.say("Nothing to undo");
    const face = this.faces.id.indexOf(id);
    const place = this.order.indexOf(face);
    if (place >= 0) this.mark(place);
    this.refresh(face);
  },

  /** Show a changed decision. @param {number} face */
  refresh(face) {
    const tile = this.tileOf(face);
    if (tile) this.badge(tile, face);
    if (get("zoom").open) this.zoom();
    this.count();
  },

  /** @param {string} id */
  note(id) {
    get("notes-id").textContent = id;
    get("notes-text").value = this.decisions.of(id).note;
    get("notes").showModal();
    get("notes-text").focus();
  },

  keepNote() {
    const face = this.order[this.at];
    this.decisions.change(this.faces.id[face], { note: get("notes-text").value.trim() });
    get("notes").close();
    this.refresh(face);
  },

  /** Show the marked face at full size. */
  zoom() {
    const face = this.order[this.at];
    if (!this.head.pictures || face === undefined) return;
    const { faces, head } = this;
    const { verdict } = this.decisions.of(faces.id[face]);
    get("zoom-id").textContent = faces.id[face];
    get("zoom-verdict").textContent = verdict;
    get("zoom-verdict").className = `badge ${verdict ? `is-${verdict.replace(" ", "-")}` : ""}`;
    const picture = {
      number: face, size: faces.size[face], view: faces.view[face], full: head.full, side: head.tile,
      label: `Face ${faces.id[face]} at full size with its landmarks`,
    };
    this.withPoints(face, (points) => {
      if (this.order[this.at] !== face) return;
      get("zoom-picture").replaceChildren(fullPicture(picture, points, head.lines, this.whole));
      this.turntable.show(points.deep, head.lines);
    });
    get("facts").replaceChildren(...this.table(face).flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
    const frames = [face, ...faces.beside[face]].sort((a, b) => faces.frame[a] - faces.frame[b]);
    get("beside").replaceChildren(...(frames.length > 1 ? frames.map((other) => this.frame(other, face)) : []));
    if (get("zoom").open) return;
    get("zoom").showModal();
    get("zoom").focus();
  },

  /** @param {number} face @returns {[string, string][]} everything that is known of it */
  table(face) {
    const { faces } = this;
    const decision = this.decisions.of(faces.id[face]);
    const angles = ["yaw", "pitch", "roll"].map((name) => told(faces[name][face], 0, "°")).join(", ");
    const rows = [
      ["source", `${faces.source[face]}, ${faces.subset[face]}`],
      ["file", faces.media[face]],
      ["frame", faces.frame[face] ? String(faces.frame[face]) : ""],
      ["NME", faces.nme[face] == null ? "no points to compare with" : told(100 * faces.nme[face], 2, " %")],
      ["yaw, pitch, roll", angles],
      ["confidence", told(faces.confidence[face], 2, "")],
      [this.head.label, this.number(face).slice(this.head.label.length + 1)],
      ["note", decision.note],
    ];
    return rows.filter(([, value]) => value);
  },

  /** A frame beside the one that is shown. @param {number} face @param {number} shown */
  frame(face, shown) {
    const button = element("button", "", "frame");
    button.type = "button";
    button.append(this.picture(face), element("span", `frame ${this.faces.frame[face]}`));
    if (face === shown) button.setAttribute("aria-current", "true");
    const place = this.order.indexOf(face);
    // Frames that are not in the gallery, or filtered out, are only there to compare with.
    button.disabled = place < 0;
    button.addEventListener("click", () => this.mark(place));
    return button;
  },

  /** @param {string} layer */
  toggle(layer) {
    document.body.classList.toggle(`hide-${layer}`, !get(`layer-${layer}`).checked);
  },

  export() {
    const who = get("who").value.trim();
    if (!who) {
      if (get("zoom").open) get("zoom").close();
      get("who").focus();
      return this.say("Say who you are first: the name goes into decisions.json");
    }
    const link = element("a");
    link.href = URL.createObjectURL(new Blob([this.decisions.export(this.head, who)], { type: "application/json" }));
    link.download = "decisions.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    this.say(`${this.decisions.all.size} decisions exported; next: ls3dw audit apply`);
  },

  /** @param {File} file */
  async import(file) {
    try {
      const taken = this.decisions.import(await file.text(), this.head);
      this.arrange();
      this.say(`${taken} decisions taken from ${file.name}`);
    } catch (error) {
      this.say(`${file.name}: ${error.message}`);
    }
  },

  /** @param {KeyboardEvent} event @returns {(() => void) | undefined} what a key does on the page and at full size */
  keyed(event) {
    const zoomed = get("zoom").open;
    const turns = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] };
    if (zoomed && event.shiftKey && turns[event.key]) return () => this.turntable.turn(...turns[event.key]);
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (VERDICT_KEYS[key]) return () => this.act(VERDICT_KEYS[key]);
    if (LAYER_KEYS[key]) return () => get(`layer-${LAYER_KEYS[key]}`).click();
    const row = zoomed ? 1 : this.across;
    const keys = {
      ArrowRight: () => this.mark(this.at + 1), j: () => this.mark(this.at + 1),
      ArrowLeft: () => this.mark(this.at - 1), k: () => this.mark(this.at - 1),
      ArrowDown: () => this.mark(this.at + row), ArrowUp: () => this.mark(this.at - row),
      PageDown: () => this.mark((this.page + 1) * PAGE), PageUp: () => this.mark((this.page - 1) * PAGE),
      Home: () => this.mark(0), End: () => this.mark(this.order.length - 1),
      n: () => this.act("note"), u: () => this.act("undo"), e: () => this.export(), f: () => get("find").focus(),
      "?": () => get("help").showModal(),
      z: () => { this.whole = !this.whole; if (zoomed) this.zoom(); },
      0: () => this.turntable.front(),
      Enter: () => (zoomed ? get("zoom").close() : this.zoom()),
    };
    return keys[key];
  },

  /** @param {KeyboardEvent} event */
  onKey(event) {
    const target = /** @type {HTMLElement} */ (event.target);
    if (event.ctrlKey && event.key === "Enter" && get("notes").open) return this.keepNote();
    const writes = target.matches("textarea, select, input:not([type=checkbox])");
    if (writes && event.key === "Escape" && !get("notes").open) return this.mark(this.at);
    if (writes || event.ctrlKey || event.metaKey || event.altKey || get("notes").open || get("help").open) return;
    // Enter on any other button is that button's.
    if (event.key === "Enter" && target.matches("button:not(.tile)")) return;
    const action = this.keyed(event);
    if (!action) return;
    event.preventDefault();
    action();
  },

  listen() {
    document.addEventListener("keydown", (event) => this.onKey(event));
    for (const name of ["source", "yaw", "verdict"]) get(name).addEventListener("change", () => this.arrange());
    for (const name of ["sort", "reverse"]) get(name).addEventListener("change", () => this.arrange(false));
    get("find").addEventListener("input", () => this.arrange());
    for (const layer of Object.values(LAYER_KEYS)) {
      get(`layer-${layer}`).addEventListener("change", () => this.toggle(layer));
      this.toggle(layer);
    }
    get("grid").addEventListener("click", (event) => {
      const tile = event.target.closest(".tile");
      if (!tile) return;
      this.mark(this.order.indexOf(Number(tile.dataset.face)));
      this.zoom();
    });
    for (const button of document.querySelectorAll("[data-do]")) button.addEventListener("click", () => this.act(button.dataset.do));
    for (const button of document.querySelectorAll("[data-go]")) button.addEventListener("click", () => this.mark(this.at + Number(button.dataset.go)));
    for (const button of document.querySelectorAll("[data-close]")) button.addEventListener("click", () => button.closest("dialog").close());
    get("zoom").addEventListener("close", () => this.mark(this.at));
    get("notes").querySelector("form").addEventListener("submit", (event) => { event.preventDefault(); this.keepNote(); });
    get("page-back").addEventListener("click", () => this.mark((this.page - 1) * PAGE));
    get("page-on").addEventListener("click", () => this.mark((this.page + 1) * PAGE));
    get("help-open").addEventListener("click", () => get("help").showModal());
    get("export").addEventListener("click", () => this.export());
    get("import").addEventListener("click", () => get("file").click());
    get("file").addEventListener("change", () => { if (get("file").files[0]) this.import(get("file").files[0]); get("file").value = ""; });
    get("who").addEventListener("change", () => { try { localStorage.setItem("ls3dw:who", get("who").value); } catch { /* kept in the page */ } });
  },
});
