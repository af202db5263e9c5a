// The script of the report page: tilts and slices to page through, surfaces to rotate, tables to sort.
// It is the only script that the policy of the page allows; what it shows comes as JSON in elements of the page. Where
// it cannot run, the still pictures remain.
"use strict";
(() => {
  const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));
  const one = (selector, root = document) => root.querySelector(selector);
  const given = (id) => {
    const element = document.getElementById(id);
    return element ? JSON.parse(element.textContent) : null;
  };
  const make = (tag, text) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    return element;
  };

  // --- numbers and scale bars, as in the still pictures ---

  function number(value, digits = 3) {
    if (!Number.isFinite(value)) return "–";
    if (value === 0) return "0";
    const power = Math.floor(Math.log10(Math.abs(value)));
    const text = value.toFixed(Math.min(12, Math.max(0, digits - 1 - power)));
    return (text.includes(".") ? text.replace(/\.?0+$/, "") : text).replace("-", "−");
  }

  const length = (nm) => (nm >= 1000 ? `${number(nm / 1000)}\u00a0µm` : `${number(nm)}\u00a0nm`);

  function niceLength(limit) {
    const power = 10 ** Math.floor(Math.log10(limit));
    return power * [5, 2, 1].find((step) => step * power <= limit * (1 + 1e-9));
  }

  // Draw a bar of a round length in a corner; a pixel of the canvas is `unit` nm (or px, where no size is known).
  function scaleBar(context, unit, known, height, colors, font) {
    const bar = niceLength((context.canvas.width / 4) * unit);
    const px = bar / unit;
    const left = font * 0.6;
    const bottom = height - font * 0.6;
    const text = known ? length(bar) : `${number(bar)} px`;
    context.font = `600 ${font}px system-ui, sans-serif`;
    context.textAlign = "left";
    context.textBaseline = "alphabetic";
    if (colors.rim) {
      context.fillStyle = colors.rim;
      context.fillRect(left - 2, bottom - font * 0.28 - 2, px + 4, font * 0.28 + 4);
    }
    context.fillStyle = colors.ink;
    context.fillRect(left, bottom - font * 0.28, px, font * 0.28);
    rimmed(context, text, left, bottom - font * 0.6, colors);
  }

  function rimmed(context, text, x, y, colors) {
    if (colors.rim) {
      context.strokeStyle = colors.rim;
      context.lineWidth = 4;
      context.lineJoin = "round";
      context.strokeText(text, x, y);
    }
    context.fillStyle = colors.ink;
    context.fillText(text, x, y);
  }

  const ON_IMAGE = { ink: "#ffffff", rim: "#000000" };
  const named = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

  // --- pictures, decoded when they are first shown ---

  class Pictures {
    constructor(kind, list) {
      this.kind = kind;
      this.list = list;
      this.known = new Map();
    }

    at(i) {
      if (!this.known.has(i)) {
        const image = new Image();
        image.src = `data:${this.kind};base64,${this.list[i]}`;
        this.known.set(i, image.decode().then(() => image));
      }
      return this.known.get(i);
    }
  }

  const WIDE = 720; // px of a canvas that shows an image

  function sized(canvas, width, height) {
    const zoom = Math.max(1, Math.round(WIDE / Math.max(width, height)));
    canvas.width = width * zoom;
    canvas.height = height * zoom;
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = zoom === 1;
    return [context, zoom];
  }

  const fontOf = (canvas) => Math.max(14, Math.round((26 * Math.max(canvas.width, canvas.height)) / WIDE));

  // --- tilt series ---

  function tilts(root, data) {
    const slider = one("input[type=range]", root);
    const output = one("output", root);
    const button = one("button", root);
    const views = all("canvas", root).map((canvas) => {
      const series = data.series[canvas.dataset.series];
      return { canvas, series, pictures: new Pictures(data.kind, series.images) };
    });
    let playing = null;
    let wanted = 0;

    function words(i) {
      const parts = [data.angles ? `${number(data.angles[i], 4)}°` : `image ${data.index[i] + 1}`];
      parts.push(`image ${data.index[i] + 1} of ${data.all}`);
      if (data.shifts) {
        const [dy, dx] = data.shifts[i];
        const real = data.pixel_nm ? ` (${number(dx * data.pixel_nm)} nm, ${number(dy * data.pixel_nm)} nm)` : "";
        parts.push(`shift x ${number(dx)} px, y ${number(dy)} px${real}`);
      }
      if (data.outlier && data.outlier[i]) parts.push("outlier");
      return parts.join(" · ");
    }

    async function show() {
      const i = Number(slider.value);
      wanted = i;
      output.textContent = words(i);
      slider.setAttribute("aria-valuetext", output.textContent);
      const images = await Promise.all(views.map((view) => view.pictures.at(i)));
      if (wanted !== i) return;
      views.forEach((view, k) => {
        const [context, zoom] = sized(view.canvas, view.series.width, view.series.height);
        const { width, height } = view.canvas;
        context.drawImage(images[k], 0, 0, width, height);
        if (view.series.axis) {
          context.strokeStyle = named("tilt-axis");
          context.lineWidth = 2;
          context.setLineDash([12, 12]);
          context.beginPath();
          context.moveTo(width / 2, 0);
          context.lineTo(width / 2, height);
          context.stroke();
        }
        const unit = (data.pixel_nm || 1) * view.series.factor / zoom;
        scaleBar(context, unit, Boolean(data.pixel_nm), height, ON_IMAGE, fontOf(view.canvas));
      });
    }

    function play() {
      if (playing) clearInterval(playing);
      playing = playing ? null : setInterval(() => {
        slider.value = (Number(slider.value) + 1) % data.index.length;
        show();
      }, 110);
      button.textContent = playing ? "❚❚" : "▶";
      button.setAttribute("aria-label", playing ? "stop" : "play");
    }

    slider.addEventListener("input", show);
    button.addEventListener("click", play);
    return show();
  }

  // --- slices ---

  const LINES = Object.fromEntries(["x", "y", "z"].map((axis) => [axis, named(`axis-${axis}`)]));
  // Cividis (Nuñez, Anderton & Renslow, 2018), which looks the same with colour blindness, at eight points.
  const CIVIDIS = [[0, 34, 78], [26, 56, 111], [66, 78, 108], [98, 100, 112], [126, 123, 121], [160, 148, 116],
    [202, 179, 94], [254, 232, 56]];

  function cividis(level) {
    const at = (level / 255) * (CIVIDIS.length - 1);
    const low = Math.min(CIVIDIS.length - 2, Math.floor(at));
    return CIVIDIS[low].map((c, k) => Math.round(c + (at - low) * (CIVIDIS[low + 1][k] - c)));
  }

  const rgb = (color) => [1, 3, 5].map((k) => parseInt(color.slice(k, k + 2), 16));

  function levels(image, width, height) {
    const canvas = make("canvas");
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.imageSmoothingEnabled = false;
    context.drawImage(image, 0, 0, width, height);
    return [canvas, context, context.getImageData(0, 0, width, height)];
  }

  function slices(root, data) {
    const overlay = root.dataset.overlay === "1" && data.labels;
    const panels = all("[data-plane]", root).map((figure) => {
      const plane = data.planes[figure.dataset.plane];
      return {
        plane,
        canvas: one("canvas", figure),
        slider: one("input", figure),
        output: one("output", figure),
        images: new Pictures(data.kind, plane.images),
        labels: overlay ? new Pictures("image/png", data.labels[figure.dataset.plane]) : null,
        sure: data.confidence ? new Pictures(data.kind, data.confidence[figure.dataset.plane]) : null,
        wanted: -1,
      };
    });
    const opacity = one("[data-role=opacity]", root);
    const lines = one("[data-role=lines]", root);
    const confidence = one("[data-role=confidence]", root);
    const boxes = all("[data-class]", root);

    const along = (axis) => panels.find((panel) => panel.plane.axis === axis);
    const position = (panel) => panel.plane.positions[Number(panel.slider.value)];

    function paint(context, image, { width, height }) {
      const [canvas, inner, pixels] = levels(image, width, height);
      const shown = new Map(boxes.filter((box) => box.checked).map((box) => [Number(box.dataset.class), box]));
      const strength = Number(opacity.value);
      const colors = new Map(data.classes.map((c) => [c.index, rgb(c.color)]));
      const index = new Uint8Array(width * height);
      for (let i = 0; i < index.length; i++) index[i] = pixels.data[4 * i];
      for (let i = 0; i < index.length; i++) {
        const k = index[i];
        if (!shown.has(k)) {
          pixels.data[4 * i + 3] = 0;
          continue;
        }
        const edge = (i % width && index[i - 1] !== k) || (i >= width && index[i - width] !== k);
        pixels.data.set(colors.get(k), 4 * i);
        pixels.data[4 * i + 3] = Math.round(255 * Math.min(1, edge ? 2 * strength : strength));
      }
      inner.putImageData(pixels, 0, 0);
      context.imageSmoothingEnabled = false;
      context.drawImage(canvas, 0, 0, context.canvas.width, context.canvas.height);
    }

    function heat(context, image, { width, height }) {
      const [canvas, inner, pixels] = levels(image, width, height);
      const table = Array.from({ length: 256 }, (_, level) => cividis(level));
      for (let i = 0; i < width * height; i++) pixels.data.set(table[pixels.data[4 * i]], 4 * i);
      inner.putImageData(pixels, 0, 0);
      context.drawImage(canvas, 0, 0, context.canvas.width, context.canvas.height);
    }

    function cross(context, panel, zoom) {
      [[panel.plane.columns, true], [panel.plane.rows, false]].forEach(([axis, upright]) => {
        const other = along(axis);
        const at = ((position(other) + 0.5) / data.factor) * zoom;
        context.strokeStyle = LINES[axis];
        context.globalAlpha = 0.8;
        context.lineWidth = 1.5;
        context.beginPath();
        context.moveTo(upright ? at : 0, upright ? 0 : at);
        context.lineTo(upright ? at : context.canvas.width, upright ? context.canvas.height : at);
        context.stroke();
        context.globalAlpha = 1;
      });
    }

    async function draw(panel) {
      const { plane, canvas, slider, output } = panel;
      const i = Number(slider.value);
      const at = plane.positions[i];
      const real = data.voxel_nm ? ` · ${length(at * data.voxel_nm)}` : "";
      output.textContent = `${plane.axis} = ${at} of ${plane.n}${real}`;
      slider.setAttribute("aria-valuetext", output.textContent);
      panel.wanted += 1;
      const turn = panel.wanted;
      const [image, labels, sure] = await Promise.all([
        panel.images.at(i),
        panel.labels ? panel.labels.at(i) : null,
        confidence && confidence.checked ? panel.sure.at(i) : null,
      ]);
      if (turn !== panel.wanted) return;
      const [context, zoom] = sized(canvas, plane.width, plane.height);
      if (sure) heat(context, sure, plane);
      else context.drawImage(image, 0, 0, canvas.width, canvas.height);
      if (labels && !sure) paint(context, labels, plane);
      if (lines.checked) cross(context, panel, zoom);
      const font = fontOf(canvas);
      scaleBar(context, ((data.voxel_nm || 1) * data.factor) / zoom, Boolean(data.voxel_nm), canvas.height, ON_IMAGE, font);
      rimmed(context, `${plane.columns} →`, font * 0.4, font * 1.1, ON_IMAGE);
      rimmed(context, `${plane.rows} ↓`, font * 0.4, font * 2.3, ON_IMAGE);
    }

    const drawAll = () => Promise.all(panels.map(draw));

    function nearest(panel, position_) {
      const { positions } = panel.plane;
      let best = 0;
      positions.forEach((p, i) => {
        if (Math.abs(p - position_) < Math.abs(positions[best] - position_)) best = i;
      });
      panel.slider.value = best;
    }

    panels.forEach((panel) => {
      panel.slider.addEventListener("input", () => (lines.checked ? drawAll() : draw(panel)));
      panel.canvas.addEventListener("click", (event) => {
        const box = panel.canvas.getBoundingClientRect();
        const { width, height } = panel.plane;
        // The picture may be narrower than its box (object-fit).
        const fit = Math.min(box.width / width, box.height / height);
        const x = (event.clientX - box.left - (box.width - width * fit) / 2) / fit;
        const y = (event.clientY - box.top - (box.height - height * fit) / 2) / fit;
        nearest(along(panel.plane.columns), x * data.factor);
        nearest(along(panel.plane.rows), y * data.factor);
        drawAll();
      });
    });
    [lines, opacity, confidence, ...boxes].forEach((control) => control && control.addEventListener("input", drawAll));
    return drawAll();
  }

  // --- surfaces ---

  const VERTEX = `
    attribute vec3 position; attribute vec3 normal;
    uniform mat3 view; uniform vec3 centre; uniform vec3 scale; uniform vec2 pan; varying vec3 facing;
    void main() {
      vec3 p = view * (position - centre) * scale; // right, down, forward
      facing = view * normal;
      gl_Position = vec4(p.x + pan.x, -p.y + pan.y, p.z, 1.0);
    }`;
  // Light and glass as in the still picture: light comes over the viewer's left shoulder, glass is denser where one
  // looks along it.
  const FRAGMENT = `
    precision mediump float;
    uniform vec3 color; uniform float opacity; varying vec3 facing;
    void main() {
      vec3 n = normalize(facing);
      if (n.z > 0.0) n = -n;
      float lit = max(dot(n, vec3(-0.45, -0.65, -0.61)), 0.0);
      float shine = pow(max(dot(n, vec3(-0.45, -0.65, -1.61)) / 1.794, 0.0), 40.0);
      if (opacity < 0.0) {
        gl_FragColor = vec4(min(color * (0.38 + 0.68 * lit) + 0.35 * shine, 1.0), 1.0);
      } else {
        float thin = 0.08 + 0.42 * (1.0 + n.z) * (1.0 + n.z);
        float alpha = opacity < 0.5 ? 2.0 * opacity * thin : mix(thin, 1.0, 2.0 * opacity - 1.0);
        gl_FragColor = vec4(min(color * (0.6 + 0.4 * lit) + 0.1 * shine, 1.0) * alpha, alpha);
      }
    }`;

  async function unpacked(text) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  // Undo the packing of tomoseg/report/sampling/mesh.py.
  async function decoded(found) {
    const bytes = await unpacked(found.data);
    const n = found.points;
    const m = 3 * found.faces;
    const positions = new Uint16Array(3 * n);
    for (let axis = 0; axis < 3; axis++) {
      let value = 0;
      for (let i = 0; i < n; i++) {
        const folded = bytes[axis * n + i] | (bytes[3 * n + axis * n + i] << 8);
        value = (value + (folded & 1 ? -((folded + 1) >> 1) : folded >> 1)) & 65535;
        positions[3 * i + axis] = value;
      }
    }
    const corners = new Uint32Array(m);
    const start = 6 * n;
    let next = 0;
    for (let i = 0; i < m; i++) {
      const behind = bytes[start + i] | (bytes[start + m + i] << 8) | (bytes[start + 2 * m + i] << 16);
      corners[i] = next - behind;
      if (!behind) next += 1;
    }
    return { positions, corners, normals: normals(positions, corners) };
  }

  function normals(positions, corners) {
    const sums = new Float32Array(positions.length);
    const side = (a, b, k) => positions[3 * b + k] - positions[3 * a + k];
    for (let i = 0; i < corners.length; i += 3) {
      const [a, b, c] = [corners[i], corners[i + 1], corners[i + 2]];
      const [ux, uy, uz] = [side(a, b, 0), side(a, b, 1), side(a, b, 2)];
      const [vx, vy, vz] = [side(a, c, 0), side(a, c, 1), side(a, c, 2)];
      const n = [uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx];
      for (const corner of [a, b, c]) for (let k = 0; k < 3; k++) sums[3 * corner + k] += n[k];
    }
    const found = new Int8Array((positions.length / 3) * 4);
    for (let i = 0; i < positions.length / 3; i++) {
      const size = Math.hypot(sums[3 * i], sums[3 * i + 1], sums[3 * i + 2]) || 1;
      for (let k = 0; k < 3; k++) found[4 * i + k] = Math.round((127 * sums[3 * i + k]) / size);
    }
    return found;
  }

  const product = (a, b) => [0, 1, 2].map((i) => [0, 1, 2].map((j) => a[i][0] * b[0][j] + a[i][1] * b[1][j] + a[i][2] * b[2][j]));
  const applied = (a, v) => a.map((row) => row[0] * v[0] + row[1] * v[1] + row[2] * v[2]);
  const turned = (angle) => [[Math.cos(angle), 0, Math.sin(angle)], [0, 1, 0], [-Math.sin(angle), 0, Math.cos(angle)]];
  const tipped = (angle) => [[1, 0, 0], [0, Math.cos(angle), Math.sin(angle)], [0, -Math.sin(angle), Math.cos(angle)]];

  // Accumulated rotations gradually lose their right angles.
  function orthonormal([a, b]) {
    const unit = (v) => v.map((c) => c / Math.hypot(...v));
    const x = unit(a);
    const along = b[0] * x[0] + b[1] * x[1] + b[2] * x[2];
    const y = unit(b.map((c, k) => c - along * x[k]));
    return [x, y, [x[1] * y[2] - x[2] * y[1], x[2] * y[0] - x[0] * y[2], x[0] * y[1] - x[1] * y[0]]];
  }

  function program(gl) {
    const made = gl.createProgram();
    [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]].forEach(([kind, source]) => {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
      gl.attachShader(made, shader);
    });
    gl.linkProgram(made);
    if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(made));
    return made;
  }

  function uploaded(gl, mesh) {
    const buffer = (kind, values) => {
      const made = gl.createBuffer();
      gl.bindBuffer(kind, made);
      gl.bufferData(kind, values, gl.STATIC_DRAW);
      return made;
    };
    const padded = new Uint16Array((mesh.positions.length / 3) * 4); // aligned to four bytes, as graphics cards require
    for (let i = 0; i < mesh.positions.length / 3; i++) padded.set(mesh.positions.subarray(3 * i, 3 * i + 3), 4 * i);
    return {
      positions: buffer(gl.ARRAY_BUFFER, padded),
      normals: buffer(gl.ARRAY_BUFFER, mesh.normals),
      corners: buffer(gl.ELEMENT_ARRAY_BUFFER, mesh.corners),
      n: mesh.corners.length,
    };
  }

  async function surfaces(root, data) {
    const canvas = one("canvas.gl", root);
    const gl = typeof DecompressionStream === "function" && canvas.getContext("webgl", { alpha: true, antialias: true });
    if (!gl || !gl.getExtension("OES_element_index_uint")) return false;
    const meshes = await Promise.all(data.classes.map(decoded));
    const parts = meshes.map((mesh, i) => ({ ...data.classes[i], ...uploaded(gl, mesh) }));
    const used = program(gl);
    const place = (name) => gl.getUniformLocation(used, name);
    const spots = Object.fromEntries(["view", "centre", "scale", "pan", "color", "opacity"].map((name) => [name, place(name)]));
    const [atPosition, atNormal] = ["position", "normal"].map((name) => gl.getAttribLocation(used, name));

    // The visible part: centre and radius, in steps of the coordinates.
    const low = [65535, 65535, 65535];
    const high = [0, 0, 0];
    const every = (visit) => meshes.forEach(({ positions }) => {
      for (let i = 0; i < positions.length; i += 3) visit(positions[i], positions[i + 1], positions[i + 2]);
    });
    every((...p) => p.forEach((value, k) => {
      low[k] = Math.min(low[k], value);
      high[k] = Math.max(high[k], value);
    }));
    const centre = low.map((value, k) => (value + high[k]) / 2);
    let radius = 1;
    every((x, y, z) => {
      radius = Math.max(radius, Math.hypot(x - centre[0], y - centre[1], z - centre[2]));
    });

    const over = one("canvas.over", root);
    const stage = one(".stage", root);
    const opacity = one("[data-role=opacity]", root);
    const rotate = one("[data-role=rotate]", root);
    const picked = one(".picked", root);
    const boxes = all("[data-class]", root);
    const start = product(tipped((data.pitch * Math.PI) / 180), turned((data.yaw * Math.PI) / 180));
    let reach = 1;
    every((x, y, z) => {
      const [right, down] = applied(start, [x - centre[0], y - centre[1], z - centre[2]]);
      reach = Math.max(reach, Math.abs(right), Math.abs(down));
    });
    const fitting = (0.92 * radius) / reach;
    let view = start;
    let zoom = fitting;
    let pan = [0, 0];
    let chosen = -1;
    let waiting = false;

    function ask() {
      if (!waiting) {
        waiting = true;
        requestAnimationFrame(draw);
      }
    }

    function draw() {
      waiting = false;
      const ratio = Math.min(2, window.devicePixelRatio || 1);
      const [width, height] = [stage.clientWidth, stage.clientHeight].map((side) => Math.max(1, Math.round(side * ratio)));
      [canvas, over].forEach((c) => {
        if (c.width !== width || c.height !== height) [c.width, c.height] = [width, height];
      });
      const side = Math.min(width, height);
      const perStep = (0.97 * zoom) / radius; // half the shorter side of the canvas per step of a coordinate
      gl.viewport(0, 0, width, height);
      gl.clearColor(0, 0, 0, 0);
      gl.depthMask(true);
      gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
      gl.useProgram(used);
      gl.enable(gl.DEPTH_TEST);
      gl.uniformMatrix3fv(spots.view, false, [0, 1, 2].flatMap((j) => [0, 1, 2].map((i) => view[i][j])));
      gl.uniform3fv(spots.centre, centre);
      gl.uniform3f(spots.scale, (perStep * side) / width, (perStep * side) / height, 0.99 / radius);
      gl.uniform2f(spots.pan, (2 * pan[0] * ratio) / width, (-2 * pan[1] * ratio) / height);
      const shown = parts.filter((part) => boxes.find((box) => Number(box.dataset.class) === part.index).checked);
      gl.disable(gl.BLEND);
      gl.disable(gl.CULL_FACE);
      shown.filter((part) => part.solid).forEach((part) => one_(part, -1));
      const strength = Number(opacity.value);
      gl.enable(gl.BLEND);
      gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
      gl.enable(gl.CULL_FACE);
      gl.depthMask(strength > 0.99);
      // Far sides first, since glass is blended from back to front.
      [gl.FRONT, gl.BACK].forEach((left) => {
        gl.cullFace(left);
        shown.filter((part) => !part.solid).forEach((part) => strength > 0 && one_(part, strength));
      });
      annotate(ratio, side, perStep);
      if (rotate.checked) {
        view = product(view, turned(0.006));
        ask();
      }
    }

    function one_(part, strength) {
      gl.uniform3fv(spots.color, rgb(part.solid ? part.color : part.pale).map((c) => c / 255));
      gl.uniform1f(spots.opacity, strength);
      gl.bindBuffer(gl.ARRAY_BUFFER, part.positions);
      gl.enableVertexAttribArray(atPosition);
      gl.vertexAttribPointer(atPosition, 3, gl.UNSIGNED_SHORT, false, 8, 0);
      gl.bindBuffer(gl.ARRAY_BUFFER, part.normals);
      gl.enableVertexAttribArray(atNormal);
      gl.vertexAttribPointer(atNormal, 3, gl.BYTE, true, 4, 0);
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, part.corners);
      gl.drawElements(gl.TRIANGLES, part.n, gl.UNSIGNED_INT, 0);
    }

    // Draw scale bar, axes and a ring around the clicked particle.
    function annotate(ratio, side, perStep) {
      const context = over.getContext("2d");
      const style = getComputedStyle(stage);
      const colors = { ink: style.color };
      const font = Math.round(13 * ratio);
      context.clearRect(0, 0, over.width, over.height);
      const px = 2 / (perStep * side); // of the volume per pixel: steps
      scaleBar(context, px * data.step * (data.voxel_nm || 1), Boolean(data.voxel_nm), over.height, colors, font);
      const arm = 34 * ratio;
      const [x0, y0] = [over.width - arm - font * 4.6, over.height - arm - font];
      context.font = `600 ${font}px system-ui, sans-serif`;
      context.textBaseline = "middle";
      [["x", [1, 0, 0], LINES.x], ["y (tilt axis)", [0, 1, 0], LINES.y], ["z", [0, 0, 1], LINES.z]].forEach(([name, axis, color]) => {
        const [dx, dy] = applied(view, axis);
        context.strokeStyle = color;
        context.lineWidth = 2.5 * ratio;
        context.beginPath();
        context.moveTo(x0, y0);
        context.lineTo(x0 + arm * dx, y0 + arm * dy);
        context.stroke();
        context.fillStyle = colors.ink;
        context.textAlign = dx < -0.3 ? "right" : "left";
        context.fillText(name, x0 + (arm + 5 * ratio) * dx + (dx < -0.3 ? -3 : 3) * ratio, y0 + (arm + 9 * ratio) * dy);
      });
      if (chosen >= 0) {
        const at = projected(chosen, ratio, side, perStep);
        context.strokeStyle = colors.ink;
        context.lineWidth = 2 * ratio;
        context.setLineDash([5 * ratio, 4 * ratio]);
        context.beginPath();
        context.arc(at.x, at.y, at.r + 4 * ratio, 0, 2 * Math.PI);
        context.stroke();
        context.setLineDash([]);
      }
    }

    function projected(i, ratio, side, perStep) {
      const { x, y, z, d } = data.particles;
      const [right, down, forward] = applied(view, [x[i], y[i], z[i]].map((c, k) => (c + 0.5) / data.step - centre[k]));
      const scale = (perStep * side) / 2;
      return {
        x: over.width / 2 + right * scale + pan[0] * ratio,
        y: over.height / 2 + down * scale + pan[1] * ratio,
        r: ((d[i] / data.step) * scale) / 2,
        forward: forward - d[i] / data.step / 2,
      };
    }

    function pick(event) {
      if (!data.particles) return;
      const ratio = over.width / Math.max(1, stage.clientWidth);
      const box = stage.getBoundingClientRect();
      const [x, y] = [(event.clientX - box.left) * ratio, (event.clientY - box.top) * ratio];
      let best = Infinity;
      chosen = -1;
      for (let i = 0; i < data.particles.id.length; i++) {
        const at = projected(i, ratio, Math.min(over.width, over.height), (0.97 * zoom) / radius);
        if (Math.hypot(at.x - x, at.y - y) <= Math.max(at.r, 5 * ratio) && at.forward < best) {
          best = at.forward;
          chosen = i;
        }
      }
      tell();
      ask();
    }

    function tell() {
      picked.textContent = "";
      all("#particle-rows tr.chosen").forEach((row) => row.classList.remove("chosen"));
      if (chosen < 0) return;
      const id = String(data.particles.id[chosen]);
      const row = all("#particle-rows tbody tr").find((candidate) => candidate.dataset.id === id);
      picked.append(make("strong", `Particle ${id}`));
      const size = data.voxel_nm ? length(data.particles.d[chosen] * data.voxel_nm) : `${number(data.particles.d[chosen])} px`;
      picked.append(`: diameter ${size}. `);
      if (row) {
        row.classList.add("chosen");
        const button = make("button", "Show in table");
        button.type = "button";
        button.addEventListener("click", () => row.scrollIntoView({ block: "center" }));
        picked.append(button);
      }
    }

    function turn(dx, dy) {
      view = orthonormal(product(product(tipped(-dy), turned(-dx)), view));
      ask();
    }

    function magnify(times) {
      zoom = Math.min(40, Math.max(0.3, zoom * times));
      ask();
    }

    function reset() {
      [view, zoom, pan, chosen] = [start, fitting, [0, 0], -1];
      rotate.checked = false;
      tell();
      ask();
    }

    const fingers = new Map();
    let moved = 0;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, [event.clientX, event.clientY]);
      if (fingers.size === 1) moved = 0;
    });
    canvas.addEventListener("pointermove", (event) => {
      const last = fingers.get(event.pointerId);
      if (!last) return;
      const now = [event.clientX, event.clientY];
      const [dx, dy] = [now[0] - last[0], now[1] - last[1]];
      moved += Math.abs(dx) + Math.abs(dy);
      const others = [...fingers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
      fingers.set(event.pointerId, now);
      if (others.length) {
        const apart = ([x, y]) => Math.hypot(x - others[0][0], y - others[0][1]);
        pan = [pan[0] + dx / 2, pan[1] + dy / 2];
        magnify(apart(now) / Math.max(1, apart(last)));
      } else if (event.shiftKey || event.buttons & 6) {
        pan = [pan[0] + dx, pan[1] + dy];
        ask();
      } else {
        const pace = 3.2 / Math.min(stage.clientWidth, stage.clientHeight);
        turn(dx * pace, dy * pace);
      }
    });
    ["pointerup", "pointercancel"].forEach((name) => canvas.addEventListener(name, (event) => {
      if (fingers.delete(event.pointerId) && name === "pointerup" && moved < 5) pick(event);
    }));
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    // The wheel scrolls the page until the picture has been clicked.
    canvas.addEventListener("wheel", (event) => {
      if (document.activeElement !== canvas && !event.ctrlKey) return;
      event.preventDefault();
      magnify(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)));
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const step = 0.08;
      const keys = {
        ArrowLeft: () => turn(-step, 0),
        ArrowRight: () => turn(step, 0),
        ArrowUp: () => turn(0, -step),
        ArrowDown: () => turn(0, step),
        "+": () => magnify(1.15),
        "=": () => magnify(1.15),
        "-": () => magnify(1 / 1.15),
        0: reset,
        r: reset,
      };
      if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      keys[event.key]();
    });
    const buttons = { reset, closer: () => magnify(1.25), farther: () => magnify(0.8) };
    all("[data-does]", root).forEach((button) => button.addEventListener("click", buttons[button.dataset.does]));
    [opacity, rotate, ...boxes].forEach((control) => control.addEventListener("input", ask));
    canvas.addEventListener("webglcontextlost", () => root.closest(".choice").classList.remove("on"));
    new ResizeObserver(ask).observe(stage);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", ask);
    ask();
    return true;
  }

  // --- tables ---

  const TIMES = { "kB": 1e3, "MB": 1e6, "GB": 1e9, "nm": 1, "µm": 1e3, "s": 1, "%": 1 };

  // Return what a cell is sorted by: its number, in a common unit, or its text; empty cells come last.
  function sortable(text) {
    const plain = text.trim().replace(/−/g, "-").replace(/\u00a0/g, " ");
    const found = /^(-?[\d.]+(?:e[-+]?\d+)?)(?: ?(kB|MB|GB|nm|µm|s|%))?$/.exec(plain);
    if (found && Number.isFinite(Number(found[1]))) return Number(found[1]) * (TIMES[found[2]] || 1);
    return plain === "–" ? null : plain;
  }

  const inOrder = (a, b) => (typeof a === typeof b && typeof a === "number" ? a - b : String(a).localeCompare(String(b)));

  function sorted(table, k, direction) {
    const body = one("tbody", table);
    const rows = all("tr", body).map((row) => [sortable(row.cells[k].textContent), row]);
    rows.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : direction * inOrder(a, b)));
    body.append(...rows.map(([, row]) => row));
    rows.forEach(([, row], i) => row.classList.toggle("more", i >= 25));
    all("th", table).forEach((th, i) => {
      if (i === k) th.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
      else th.removeAttribute("aria-sort");
    });
  }

  function sortableTable(table) {
    all("th", table).forEach((th, k) => {
      const button = make("button", th.textContent);
      button.type = "button";
      th.textContent = "";
      th.append(button);
      button.addEventListener("click", () => sorted(table, k, th.getAttribute("aria-sort") === "ascending" ? -1 : 1));
    });
  }

  // --- the command ---

  function copying(root) {
    const [button, text] = [make("button", "Copy"), one("code", root)];
    button.type = "button";
    button.addEventListener("click", async () => {
      let done = true;
      try {
        await navigator.clipboard.writeText(text.textContent);
      } catch {
        getSelection().selectAllChildren(text);
        done = document.execCommand("copy");
      }
      button.textContent = done ? "Copied" : "Selected; press Ctrl+C";
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
    root.append(button);
  }

  // --- start ---

  const makers = { tilts, slices, surfaces };

  async function begin(root) {
    const found = given(`data-${root.dataset.kind}`);
    const choice = root.closest(".choice");
    if (!found) return;
    choice.classList.add("on"); // visible, so that it has a size
    let fits = false;
    try {
      fits = (await makers[root.dataset.kind](root, found)) !== false;
    } finally {
      if (!fits) choice.classList.remove("on");
    }
  }

  all("table.sortable").forEach(sortableTable);
  all(".command").forEach(copying);
  all(".live[data-kind]").forEach(begin);
})();
