// A small viewer for one textured mesh: enough WebGL for what this page makes, not a glTF library.

const VERTEX = `
  attribute vec3 position; attribute vec3 normal; attribute vec2 uv;
  uniform mat4 view; uniform mat4 turn; varying vec3 n; varying vec2 t;
  void main() { n = (turn * vec4(normal, 0.0)).xyz; t = uv; gl_Position = view * turn * vec4(position, 1.0); }`;
const FRAGMENT = `
  precision mediump float; varying vec3 n; varying vec2 t; uniform sampler2D atlas;
  void main() {
    vec3 normal = normalize(n);
    float key = max(dot(normal, normalize(vec3(-0.5, 0.6, 0.7))), 0.0);
    float rim = max(dot(normal, normalize(vec3(0.7, -0.3, 0.4))), 0.0);
    gl_FragColor = vec4(texture2D(atlas, t).rgb * (0.42 + 0.72 * key + 0.16 * rim), 1.0);
  }`;
const PIXEL_RATIO_MAX = 2;

/** Draws the model at `url` into `canvas`, turnable by pointer and arrow keys. Rejects where that cannot be done. */
export async function showModel(canvas, url, { isCalm = false } = {}) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`status ${response.status}`);
  const model = await readModel(await response.arrayBuffer());
  const gl = canvas.getContext('webgl', { antialias: true, alpha: true });
  if (!gl || !gl.getExtension('OES_element_index_uint')) throw new Error('no WebGL');
  const program = prepare(gl, model);
  const pose = { yaw: -0.45, pitch: 0.3, zoom: 1, drift: isCalm ? 0 : 0.25 };
  const redraw = () => draw(gl, canvas, program, model, pose);
  control(canvas, pose, redraw);
  new ResizeObserver(redraw).observe(canvas);
  redraw();
  if (pose.drift) sway(canvas, pose, redraw);
}

/** Positions, normals, texture coordinates, indices and image of a GLB with one primitive. */
async function readModel(data) {
  const view = new DataView(data);
  if (data.byteLength < 20 || view.getUint32(0, true) !== 0x46546c67) throw new Error('not a GLB');
  const jsonLength = view.getUint32(12, true);
  const document_ = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 20, jsonLength)));
  const start = 20 + jsonLength + 8;
  const bytesOf = (number) => {
    const { byteOffset = 0, byteLength } = document_.bufferViews[number];
    return data.slice(start + byteOffset, start + byteOffset + byteLength);
  };
  const read = (number) => {
    const accessor = document_.accessors[number];
    const Type = { 5123: Uint16Array, 5125: Uint32Array, 5126: Float32Array }[accessor.componentType];
    return { values: new Type(bytesOf(accessor.bufferView)), accessor };
  };
  const primitive = document_.meshes[0].primitives[0];
  const positions = read(primitive.attributes.POSITION);
  const image = document_.images[0];
  return {
    positions: positions.values,
    normals: read(primitive.attributes.NORMAL).values,
    uvs: read(primitive.attributes.TEXCOORD_0).values,
    indices: read(primitive.indices),
    low: positions.accessor.min,
    high: positions.accessor.max,
    texture: await createImageBitmap(new Blob([bytesOf(image.bufferView)], { type: image.mimeType })),
  };
}

function prepare(gl, model) {
  const program = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error('shaders do not link');
  gl.useProgram(program);
  for (const [name, values, width] of [['position', model.positions, 3], ['normal', model.normals, 3], ['uv', model.uvs, 2]]) {
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
    const place = gl.getAttribLocation(program, name);
    gl.enableVertexAttribArray(place);
    gl.vertexAttribPointer(place, width, gl.FLOAT, false, 0, 0);
  }
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, model.indices.values, gl.STATIC_DRAW);
  gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGB, gl.RGB, gl.UNSIGNED_BYTE, model.texture);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR);
  gl.enable(gl.DEPTH_TEST);
  gl.enable(gl.CULL_FACE);
  return program;
}

function draw(gl, canvas, program, model, pose) {
  const ratio = Math.min(PIXEL_RATIO_MAX, devicePixelRatio || 1);
  const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
  if (width === 0 || height === 0) return;
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  gl.viewport(0, 0, width, height);
  gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
  const { low, high } = model;
  const centre = low.map((value, axis) => (value + high[axis]) / 2);
  const [spanX, spanY] = [high[0] - low[0], high[1] - low[1]];
  // Far enough that the whole tile is seen, whatever the canvas's proportions; field of view 30°.
  const focal = 1 / Math.tan(Math.PI / 12);
  const distance = (focal / 2) * 1.22 * Math.max(spanY, spanX / (width / height), spanX * 0.75) / pose.zoom;
  const [near, far] = [distance * 0.1, distance * 4];
  const view = new Float32Array([
    focal / (width / height), 0, 0, 0, 0, focal, 0, 0,
    0, 0, (far + near) / (near - far), -1,
    0, 0, (2 * far * near - (far + near) * distance) / (near - far), distance,
  ]);
  const [cy, sy, cp, sp] = [Math.cos(pose.yaw), Math.sin(pose.yaw), Math.cos(pose.pitch), Math.sin(pose.pitch)];
  const [x, y, z] = centre;
  const rows = [[cy, 0, sy], [sp * sy, cp, -sp * cy], [-cp * sy, sp, cp * cy]];
  const move = rows.map(([a, b, c]) => -(a * x + b * y + c * z));
  const turn = new Float32Array([0, 1, 2].flatMap((column) => [...rows.map((row) => row[column]), 0]).concat(move, 1));
  gl.uniformMatrix4fv(gl.getUniformLocation(program, 'view'), false, view);
  gl.uniformMatrix4fv(gl.getUniformLocation(program, 'turn'), false, turn);
  gl.drawElements(gl.TRIANGLES, model.indices.values.length, model.indices.accessor.componentType, 0);
}

function control(canvas, pose, redraw) {
  const turn = (dx, dy) => {
    pose.drift = 0;
    pose.yaw += dx;
    pose.pitch = Math.max(-1.5, Math.min(1.5, pose.pitch + dy));
    redraw();
  };
  const zoom = (factor) => {
    pose.zoom = Math.max(0.5, Math.min(6, pose.zoom * factor));
    redraw();
  };
  canvas.tabIndex = 0;
  canvas.addEventListener('pointerdown', (event) => canvas.setPointerCapture(event.pointerId));
  canvas.addEventListener('pointermove', (event) => {
    if (event.buttons) turn(event.movementX * 0.01, event.movementY * 0.01);
  });
  canvas.addEventListener('wheel', (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * 0.001));
  }, { passive: false });
  canvas.addEventListener('keydown', (event) => {
    const step = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] }[event.key];
    const factor = { '+': 1.15, '-': 1 / 1.15 }[event.key];
    if (!step && !factor) return;
    event.preventDefault();
    if (step) turn(...step);
    else zoom(factor);
  });
}

/** A slow swing until somebody takes hold of it. */
function sway(canvas, pose, redraw) {
  const start = performance.now();
  const frame = (now) => {
    if (!pose.drift || !canvas.isConnected) return;
    pose.yaw = -0.45 * Math.cos((now - start) / 1800);
    redraw();
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}
