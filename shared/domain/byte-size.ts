/*
 * Sizes as people write and read them. Binary throughout: 10G is 10 GiB, as in qemu-img and LVM. Used by the CLI, the
 * configuration and every table that is printed. Pure.
 */
import { VarveError } from "./errors.ts";

const units = ["", "K", "M", "G", "T", "P"] as const;
const sizePattern = /^([0-9]+)(\.[0-9]+)?\s*([kmgtp])?(i?b)?$/i;

/** Bytes of a size such as `512M`, `10G`, `10GiB`, `1.5T` or `1048576`; null when it is not one. */
export function parseByteSize(text: string): number | null {
  const match = sizePattern.exec(text.trim());
  if (match === null) return null;
  const [, whole = "", fraction = "", unit = ""] = match;
  const power = unit === "" ? 0 : units.indexOf(unit.toUpperCase() as (typeof units)[number]);
  const bytes = Number(whole + fraction) * 1024 ** power;
  return Number.isSafeInteger(bytes) ? bytes : null;
}

/** Shortest exact binary form of a size: 10737418240 is `10G`, 1536 is `1536`. Parses back to the same number. */
export function exactByteSize(bytes: number): string {
  let value = bytes;
  let power = 0;
  while (value >= 1024 && value % 1024 === 0 && power < units.length - 1) {
    value /= 1024;
    power += 1;
  }
  return `${value}${units[power] ?? ""}`;
}

/** For reading: three significant digits and a unit, `1.21 GiB`. */
export function readableByteSize(bytes: number): string {
  let value = bytes;
  let power = 0;
  while (value >= 1024 && power < units.length - 1) {
    value /= 1024;
    power += 1;
  }
  if (power === 0) return `${bytes} B`;
  const digits = Number.isInteger(value) || value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return `${value.toFixed(digits)} ${units[power] ?? ""}iB`;
}

/** parseByteSize for input from outside: says what was wrong. `what` names the place, e.g. `--size`. */
export function byteSizeFrom(text: string, what: string): number {
  const bytes = parseByteSize(text);
  if (bytes !== null) return bytes;
  throw new VarveError("SizeSyntaxError", "Invalid", `${what}: ${JSON.stringify(text)} is not a size`, {
    hint: "Write a number with K, M, G, T or P (binary): 512M, 10G, 1.5T.",
    fields: { text },
  });
}
