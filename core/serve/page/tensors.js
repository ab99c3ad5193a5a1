// Files and JSON into tensors: {name, datatype, shape, bytes}.

const ARRAYS = {
  BOOL: Uint8Array, UINT8: Uint8Array, UINT16: Uint16Array, UINT32: Uint32Array, UINT64: BigUint64Array,
  INT8: Int8Array, INT16: Int16Array, INT32: Int32Array, INT64: BigInt64Array,
  FP32: Float32Array, FP64: Float64Array,
};
const NPY = {
  "|b1": "BOOL", "|u1": "UINT8", "<u2": "UINT16", "<u4": "UINT32", "<u8": "UINT64", "|i1": "INT8",
  "<i2": "INT16", "<i4": "INT32", "<i8": "INT64", "<f2": "FP16", "<f4": "FP32", "<f8": "FP64",
};
const MEAN = [0.485, 0.456, 0.406], DEVIATION = [0.229, 0.224, 0.225];
// Of an axis of any size, for a picture.
const ANY_SIDE = 224;

export const count = (shape) => shape.reduce((product, size) => product * size, 1);

// Where a picture's channels, height and width are: null for inputs that are no pictures.
export function pictureAxes(input) {
  const shape = input.shape;
  if (shape.length !== 4) return null;
  const isChannels = (size) => size === 3 || size === 1;
  if (isChannels(shape[1])) return { channels: 1, height: 2, width: 3 };
  if (isChannels(shape[3])) return { channels: 3, height: 1, width: 2 };
  return null;
}

export async function readFile(file, input, isNormalised) {
  if (/\.npy$/i.test(file.name)) return readNpy(await file.arrayBuffer(), input);
  if (/\.csv$/i.test(file.name)) return readCsv(await file.text(), input);
  if (file.type.startsWith("image/")) return readPicture(file, input, isNormalised);
  throw new Error(`${file.name} is not an image, .npy, .json or .csv file`);
}

export function tensor(input, values, shape) {
  const wanted = count(shape);
  if (values.length !== wanted) {
    throw new Error(`${input.name}: ${values.length} values do not fill ${shape.join(" × ")}`);
  }
  return { name: input.name, datatype: input.datatype, shape, bytes: toBytes(values, input.datatype) };
}

function toBytes(values, datatype) {
  let array;
  if (datatype === "FP16") array = Uint16Array.from(values, (value) => toHalf(Number(value)));
  else if (datatype === "BF16") {
    array = Uint16Array.from(values, (value) => new Uint32Array(Float32Array.of(Number(value)).buffer)[0] >>> 16);
  } else if (datatype.endsWith("64") && datatype !== "FP64") {
    array = ARRAYS[datatype].from(values, (value) => BigInt(value));
  } else array = ARRAYS[datatype].from(values, Number);
  return new Uint8Array(array.buffer);
}

// Float to the nearest half.
function toHalf(value) {
  const bits = new Uint32Array(Float32Array.of(value).buffer)[0];
  const sign = (bits >>> 16) & 0x8000, size = Math.abs(value);
  if (Number.isNaN(value)) return sign | 0x7e00;
  if (size >= 65520) return sign | 0x7c00;
  if (size < 2 ** -14) return sign | Math.round(size * 2 ** 24);
  return sign | ((bits & 0x7fffffff) - 0x38000000 + 0xfff + ((bits >>> 13) & 1)) >>> 13;
}

function fromHalf(bits) {
  const exponent = (bits >>> 10) & 31, fraction = bits & 1023, sign = bits & 0x8000 ? -1 : 1;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

// The shape of values for an input: its own, with the sizes that the file has; a missing batch axis is added.
function fit(input, shape) {
  const full = shape.length === input.shape.length - 1 ? [1, ...shape] : shape;
  const fits = full.length === input.shape.length && input.shape.every((size, axis) => size < 0 || size === full[axis]);
  if (!fits) {
    const wanted = input.shape.map((size) => (size < 0 ? "any" : size)).join(" × ");
    throw new Error(`${input.name}: the file has the shape ${shape.join(" × ")}, the model takes ${wanted}`);
  }
  return full;
}

function readNpy(buffer, input) {
  const bytes = new Uint8Array(buffer), view = new DataView(buffer);
  if (bytes.length < 12 || String.fromCharCode(...bytes.slice(1, 6)) !== "NUMPY") throw new Error("the file is no .npy file");
  const isLong = bytes[6] > 1, start = isLong ? 12 : 10;
  const end = start + (isLong ? view.getUint32(8, true) : view.getUint16(8, true));
  const head = new TextDecoder("latin1").decode(bytes.slice(start, end));
  const kind = NPY[/'descr': '([^']*)'/.exec(head)?.[1]];
  const shape = /'shape': \(([^)]*)\)/.exec(head)?.[1].split(",").filter((size) => size.trim()).map(Number);
  if (!kind || !shape) throw new Error("the .npy file holds no numbers");
  if (/'fortran_order': True/.test(head)) throw new Error("the .npy file is in Fortran order; save np.ascontiguousarray(it)");
  const data = buffer.slice(end);
  const values = kind === "FP16" ? Array.from(new Uint16Array(data), fromHalf) : new ARRAYS[kind](data);
  return tensor(input, values, fit(input, shape));
}

function readCsv(text, input) {
  const rows = text.trim().split(/\r?\n/).map((line) => line.split(/[,;\t]/).map((cell) => Number(cell.trim() || NaN)));
  // A first line of names.
  if (rows.length > 1 && rows[0].every(Number.isNaN)) rows.shift();
  const bad = rows.findIndex((row) => row.some(Number.isNaN) || row.length !== rows[0].length);
  if (bad >= 0) throw new Error(`line ${bad + 1} of the .csv file is not ${rows[0].length} numbers`);
  const values = rows.flat(), shape = [rows.length, rows[0].length];
  const rest = input.shape.slice(1).map((size) => (size < 0 ? 1 : size));
  if (input.shape.length === 2) return tensor(input, values, fit(input, shape));
  return tensor(input, values, fit(input, [values.length / count(rest), ...rest]));
}

async function readPicture(file, input, isNormalised) {
  const axes = pictureAxes(input);
  if (!axes) throw new Error(`${input.name} takes no picture: its shape has no channels`);
  const side = (axis) => (input.shape[axis] > 0 ? input.shape[axis] : ANY_SIDE);
  const channels = input.shape[axes.channels], height = side(axes.height), width = side(axes.width);
  const picture = await createImageBitmap(file).catch(() => {
    throw new Error(`${file.name} cannot be read as a picture`);
  });
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, width, height);
  const pixels = context.getImageData(0, 0, width, height).data;
  const isFloat = /^B?FP?(16|32|64)$/.test(input.datatype);
  const num = width * height, values = new Float32Array(channels * num);
  for (let at = 0; at < num; at++) {
    for (let channel = 0; channel < channels; channel++) {
      let value = channels === 3 ? pixels[4 * at + channel] : 0.299 * pixels[4 * at] + 0.587 * pixels[4 * at + 1] + 0.114 * pixels[4 * at + 2];
      if (isFloat) {
        value /= 255;
        if (isNormalised && channels === 3) value = (value - MEAN[channel]) / DEVIATION[channel];
      } else value = Math.round(value);
      values[axes.channels === 1 ? channel * num + at : at * channels + channel] = value;
    }
  }
  const shape = [1, 0, 0, 0];
  shape[axes.channels] = channels; shape[axes.height] = height; shape[axes.width] = width;
  return { ...tensor(input, values, shape), canvas };
}
