"use strict";
/* What people decide: kept in the browser, exported as decisions.json, imported again. */

/**
 * @typedef {{verdict: string, note: string, when: string}} Decision
 * verdict: one of VERDICTS, or empty for a note alone; when: ISO time of the last change, UTC.
 */

const VERDICTS = ["accept", "reject", "annotation wrong", "prediction wrong"];
const NOTHING = Object.freeze({ verdict: "", note: "", when: "" });
const UNDO = 1000;

class Decisions {
  /** @param {string} key of this data set, version and gallery in the browser's store */
  constructor(key) {
    this.key = key;
    /** @type {Map<string, Decision>} */
    this.all = new Map();
    /** @type {[string, Decision][]} what to go back to, the newest last */
    this.past = [];
    /** Whether the browser keeps what is decided. */
    this.kept = true;
    this.load();
  }

  /** @param {string} id @returns {Decision} */
  of(id) {
    return this.all.get(id) ?? NOTHING;
  }

  /** @param {string} id @param {Partial<Decision>} change */
  change(id, change) {
    this.past.push([id, this.of(id)]);
    if (this.past.length > UNDO) this.past.shift();
    this.put(id, { ...this.of(id), ...change, when: new Date().toISOString() });
    this.save();
  }

  /** Take the last change back. @returns {string | null} the face it was of */
  undo() {
    const last = this.past.pop();
    if (!last) return null;
    this.put(last[0], last[1]);
    this.save();
    return last[0];
  }

  /** @param {string} id @param {Decision} decision */
  put(id, decision) {
    if (decision.verdict || decision.note) this.all.set(id, decision);
    else this.all.delete(id);
  }

  load() {
    try {
      const stored = JSON.parse(localStorage.getItem(this.key) ?? "null");
      if (!stored) return;
      this.all = new Map(stored.all);
      this.past = stored.past;
    } catch {
      this.kept = false;
    }
  }

  save() {
    try {
      localStorage.setItem(this.key, JSON.stringify({ all: [...this.all], past: this.past }));
      this.kept = true;
    } catch {
      this.kept = false;
    }
  }

  /** @param {object} head version, manifest and gallery @param {string} who @returns {string} decisions.json */
  export(head, who) {
    const decisions = [...this.all].map(([id, decision]) => ({ id, ...decision }));
    decisions.sort((a, b) => (a.id < b.id ? -1 : 1));
    const { version, manifest, gallery } = head;
    return JSON.stringify({ format: 1, kind: "ls3dw decisions", version, manifest, gallery, who, decisions }, null, 1) + "\n";
  }

  /**
   * Take in an exported file; of two decisions on a face the later one stays.
   * @param {string} text @param {object} head @returns {number} how many were taken
   */
  import(text, head) {
    const file = JSON.parse(text);
    if (file?.kind !== "ls3dw decisions" || file.format !== 1 || !Array.isArray(file.decisions)) {
      throw new Error("not a decisions.json");
    }
    if (file.manifest !== head.manifest) throw new Error(`it is of another data set or version (${file.version})`);
    const fits = file.decisions.every((entry) =>
      ["id", "verdict", "note", "when"].every((name) => typeof entry?.[name] === "string")
      && (entry.verdict === "" || VERDICTS.includes(entry.verdict)));
    if (!fits) throw new Error("a decision in it is damaged");
    let taken = 0;
    for (const { id, verdict, note, when } of file.decisions) {
      if (when <= this.of(id).when) continue;
      this.past.push([id, this.of(id)]);
      this.put(id, { verdict, note, when });
      taken += 1;
    }
    this.past = this.past.slice(-UNDO);
    this.save();
    return taken;
  }
}
