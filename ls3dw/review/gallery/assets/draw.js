"use strict";
/* Draws faces with their points: SVG in tiles and at full size. Text from the data only ever becomes textContent. */

/** @typedef {{annotation: number[][], flat: number[][], deep: number[][]}} Points 68 each, in pixels of the kept picture */

const SVG = "http://www.w3.org/2000/svg";
const MISSING = -32768;
const LAYERS = /** @type {const} */ ([["annotation", 2], ["flat", 2], ["deep", 3]]);
const POINTS = 68;

/** @param {string} name @param {Record<string, string | number>} attributes @param {Node[]} children */
function svg(name, attributes, children = []) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  element.append(...children);
  return element;
}

/** @param {string} name @param {string} text @param {string} kind its class */
function element(name, text = "", kind = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

/** Decode one chunk. @param {string} packed base64 of 16-bit numbers @returns {Int16Array} */
function unpack(packed) {
  return new Int16Array(Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0)).buffer);
}

/**
 * Read a face's points out of its chunk.
 * @param {Int16Array} numbers @param {number} place of the face in the chunk @param {number} steps to a pixel
 * @returns {Points}
 */
function pointsOf(numbers, place, steps) {
  let at = place * POINTS * 7;
  const points = { annotation: [], flat: [], deep: [] };
  for (const [name, axes] of LAYERS) {
    for (let point = 0; point < POINTS; point += 1, at += axes) {
      const values = Array.from(numbers.subarray(at, at + axes), (value) => (value === MISSING ? NaN : value / steps));
      points[name].push(values);
    }
  }
  return points;
}

/** @param {number} value */
const short = (value) => value.toFixed(2);

/**
 * Draw all layers as two paths each, which costs far less than an element a point.
 * @param {Points} points @param {number[][]} lines pairs of points
 * @param {(point: number[]) => [number, number]} place to where a point is drawn
 */
function layers(points, lines, place) {
  // The 2D prediction last: its dots are the smallest, so that points in one place show as rings.
  return ["annotation", "deep", "flat"].map((name) => {
    const spots = points[name].map((point) => (Number.isNaN(point[0]) || Number.isNaN(point[1]) ? null : place(point)));
    const joined = lines.filter(([from, to]) => spots[from] && spots[to]);
    const strokes = joined.map(([from, to]) => `M${spots[from].map(short).join(" ")}L${spots[to].map(short).join(" ")}`);
    const dots = spots.filter(Boolean).map((spot) => `M${spot.map(short).join(" ")}h0`);
    return svg("g", { class: name }, [
      svg("path", { class: "lines", d: strokes.join("") }),
      svg("path", { class: "points", d: dots.join("") }),
    ]);
  });
}

/** @param {number} number of a face @returns {string} its file's name */
const fileName = (number) => `${String(number).padStart(6, "0")}.jpg`;

/**
 * Make the tile of a face, without its points.
 * @param {number} number @param {number} side @param {string} label
 */
function tilePicture(number, side, label) {
  // Pixel centres are at whole numbers, so a picture begins half a pixel earlier.
  const image = svg("image", { href: `tiles/${fileName(number)}`, x: -0.5, y: -0.5, width: side, height: side });
  return svg("svg", { viewBox: `-0.5 -0.5 ${side} ${side}`, role: "img", "aria-label": label }, [image]);
}

/**
 * Make the picture of a face at full size with its points.
 * @param {{number: number, size: [number, number], view: number[], full: boolean, side: number, label: string}} face
 * @param {Points} points @param {number[][]} lines @param {boolean} whole the whole picture, or only the tile's part
 */
function fullPicture(face, points, lines, whole) {
  const [zoom, x, y] = face.view;
  const [width, height] = face.size;
  const side = face.side / zoom;
  const place = [(-0.5 - x) / zoom, (-0.5 - y) / zoom];
  const image = face.full
    ? svg("image", { href: `full/${fileName(face.number)}`, x: -0.5, y: -0.5, width, height })
    : svg("image", { href: `tiles/${fileName(face.number)}`, x: place[0], y: place[1], width: side, height: side });
  const box = whole && face.full ? [-0.5, -0.5, width, height] : [...place, side, side];
  return svg("svg", { viewBox: box.join(" "), role: "img", "aria-label": face.label }, [
    image, ...layers(points, lines, ([px, py]) => [px, py]),
  ]);
}
