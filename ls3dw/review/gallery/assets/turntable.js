"use strict";
/* The points in space: turned by dragging or keys, nearer ones larger and brighter. */

class Turntable {
  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.canvas = canvas;
    /** @type {number[][]} */
    this.points = [];
    /** @type {number[][]} */
    this.lines = [];
    this.front();
    canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
    canvas.addEventListener("pointermove", (event) => {
      if (event.buttons) this.turn(event.movementX / 120, event.movementY / 120);
    });
  }

  front() {
    this.yaw = 0;
    this.pitch = 0;
    this.draw();
  }

  /** @param {number} yaw radians @param {number} pitch radians */
  turn(yaw, pitch) {
    this.yaw += yaw;
    this.pitch = Math.max(-1.5, Math.min(1.5, this.pitch + pitch));
    this.draw();
  }

  /** Show other points. @param {number[][]} points 68 of x, y, z @param {number[][]} lines pairs of points */
  show(points, lines) {
    this.deep = points.every((point) => point.every(Number.isFinite));
    this.lines = lines;
    const count = points.length;
    const middle = [0, 1, 2].map((axis) => points.reduce((sum, point) => sum + point[axis], 0) / count);
    const centred = points.map((point) => point.map((value, axis) => value - middle[axis]));
    const reach = Math.max(...centred.map((point) => Math.hypot(...point)));
    this.points = this.deep ? centred.map((point) => point.map((value) => value / reach)) : [];
    this.draw();
  }

  draw() {
    const pen = this.canvas.getContext("2d");
    const side = this.canvas.width;
    pen.clearRect(0, 0, side, side);
    this.canvas.setAttribute("aria-label", this.points.length ? "The 3D landmarks in space" : "No depth for this face");
    pen.font = "28px system-ui";
    pen.fillStyle = "#a0aab5";
    if (!this.points.length) {
      pen.fillText("no depth for this face", 24, 48);
      return;
    }
    const spots = this.points.map((point) => this.place(point, side));
    pen.lineWidth = 2.5;
    for (const [from, to] of this.lines) {
      const [a, b] = [spots[from], spots[to]];
      pen.strokeStyle = shade((a[2] + b[2]) / 2, 0.75);
      pen.beginPath();
      pen.moveTo(a[0], a[1]);
      pen.lineTo(b[0], b[1]);
      pen.stroke();
    }
    // The farthest first, so that nearer points cover them.
    for (const [x, y, z] of spots.sort((a, b) => a[2] - b[2])) {
      pen.fillStyle = shade(z, 1);
      pen.beginPath();
      pen.arc(x, y, 6 + 2.5 * z, 0, 2 * Math.PI);
      pen.fill();
    }
  }

  /** @param {number[]} point y down, larger z nearer @param {number} side @returns {number[]} x, y on the canvas, z */
  place([x, y, z], side) {
    const across = x * Math.cos(this.yaw) + z * Math.sin(this.yaw);
    const toward = z * Math.cos(this.yaw) - x * Math.sin(this.yaw);
    const down = y * Math.cos(this.pitch) + toward * Math.sin(this.pitch);
    const near = toward * Math.cos(this.pitch) - y * Math.sin(this.pitch);
    return [side / 2 + across * side * 0.44, side / 2 + down * side * 0.44, near];
  }
}

/** @param {number} z in -1 to 1 @param {number} opacity */
function shade(z, opacity) {
  return `hsla(196, 100%, ${Math.round(52 + 20 * z)}%, ${opacity * (0.72 + 0.28 * z)})`;
}
