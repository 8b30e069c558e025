// Random numbers from a seed: the same figure draws the same numbers for every reader.
export class Random {
  constructor(seed) {
    this.state = seed >>> 0;
    this.spare = null;
  }

  // Uniform in [0, 1): mulberry32 (T. Ettinger, 2017, public domain).
  uniform() {
    this.state = (this.state + 0x6d2b79f5) >>> 0;
    let t = this.state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  }

  // Standard normal, by Box and Muller's transform.
  normal() {
    if (this.spare !== null) {
      const kept = this.spare;
      this.spare = null;
      return kept;
    }
    const radius = Math.sqrt(-2 * Math.log(1 - this.uniform()));
    const angle = 2 * Math.PI * this.uniform();
    this.spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  }

  normals(n) {
    return Float32Array.from({ length: n }, () => this.normal());
  }

  below(n) {
    return Math.floor(this.uniform() * n);
  }
}
