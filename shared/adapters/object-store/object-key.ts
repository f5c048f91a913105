/*
 * What a key may look like, checked before any store sees it: 1-512 characters of [a-zA-Z0-9._/-], parts of 1-255 characters,
 * none "." or "..". So a key is always a path below the directory store's root, and never one of its temporary files
 * (which have "~" in their names). Called by every store of this folder.
 */
import { ObjectStoreError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";

const keyCharacters = /^[a-zA-Z0-9._/-]+$/;

export function isObjectKey(key: string): boolean {
  if (key.length > limits.objectKeyLengthMax || !keyCharacters.test(key)) return false;
  return key
    .split("/")
    .every(
      (part) => part !== "" && part !== "." && part !== ".." && part.length <= limits.objectKeyPartLengthMax,
    );
}

/** Throws Invalid: a key comes from our own code, or from an object that was checked, never from a user. */
export function checkKey(operation: string, place: string, key: string): void {
  if (isObjectKey(key)) return;
  throw new ObjectStoreError(
    { kind: "Invalid", operation, place, key: "" },
    `${JSON.stringify(key)} is no key`,
  );
}

/** A prefix is "" or the beginning of a key. */
export function checkPrefix(place: string, prefix: string): void {
  if (prefix === "" || isObjectKey(`${prefix}x`)) return;
  throw new ObjectStoreError(
    { kind: "Invalid", operation: "list", place, key: "" },
    `${JSON.stringify(prefix)} begins no key`,
  );
}

/** Objects are small enough for memory, on the way in and on the way out. */
export function checkSize(operation: string, place: string, key: string, bytes: number): void {
  if (bytes <= limits.objectBytesMax) return;
  const kind = operation === "put" ? "Internal" : "Corrupt";
  throw new ObjectStoreError(
    { kind, operation, place, key },
    `${bytes} bytes; no object of Varve has more than ${limits.objectBytesMax}`,
  );
}

/** The bytes that a range asks for, of an object of `bytes` bytes: [start, end). */
export function rangeWithin(
  bytes: number,
  range: { readonly start: number; readonly length: number } | undefined,
): { readonly start: number; readonly end: number } {
  if (range === undefined) return { start: 0, end: bytes };
  const start = Math.min(range.start, bytes);
  return { start, end: Math.min(range.start + range.length, bytes) };
}
