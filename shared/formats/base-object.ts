/*
 * A base in the bucket and its pages (docs/formats/base.md): which chunk holds each extent of the disk. The base builder
 * writes pages, then the base, then the manifest that names it; point sources read a base and the pages they need.
 */
import type { BaseContent, BasePage } from "#shared/domain/archive.ts";
import { basePageKey, extentsPerBasePage } from "#shared/domain/archive.ts";
import { limits } from "#shared/domain/limits.ts";
import { extentsMax, id, isBasePageKey, objectKey, volumeSize } from "./archive-shape.ts";
import { bad } from "./binary-fields.ts";
import { fields, integer, list, nullable, text } from "./json-shape.ts";
import { type BadObject, isBadObject, type ObjectKind, openObject, sealObject } from "./sealed-object.ts";

export const baseVersion = 1;
export const basePageVersion = 1;

/** `<sha256 of the content, 64 hex digits>.<generation, from 1>`. */
export const chunkNamePattern: RegExp = /^[0-9a-f]{64}\.[1-9][0-9]{0,15}$/;

const baseKind: ObjectKind<BaseContent> = {
  magic: "VBAS",
  version: baseVersion,
  name: "base",
  shape: fields<BaseContent>({
    volumeId: id,
    s: integer(),
    e: integer(),
    sizeBytes: volumeSize,
    pages: list(nullable(objectKey), Math.ceil(extentsMax / extentsPerBasePage), 1),
  }),
  mistake: baseMistake,
};

const pageKind: ObjectKind<BasePage> = {
  magic: "VBPG",
  version: basePageVersion,
  name: "base page",
  shape: fields<BasePage>({
    volumeId: id,
    serial: integer(),
    firstExtent: integer(0, extentsMax - 1),
    chunks: list(nullable(text(chunkNamePattern)), extentsPerBasePage, 1),
  }),
  mistake: (page) =>
    page.firstExtent % extentsPerBasePage === 0 ? null : `first extent ${page.firstExtent} is no page's`,
};

/** Pages of a disk of that size. */
export function basePagesOf(sizeBytes: number): number {
  return Math.ceil(Math.ceil(sizeBytes / limits.extentBytes) / extentsPerBasePage);
}

export function encodeBase(base: BaseContent): Buffer {
  return sealObject(baseKind, base);
}

/** Reads a whole object. Never throws. */
export function decodeBase(object: Buffer): BaseContent | BadObject {
  return openObject(baseKind, object);
}

export function encodeBasePage(page: BasePage): Buffer {
  return sealObject(pageKind, page);
}

/** Reads a whole object, which must be the one that `key` names: pages look alike. Never throws. */
export function decodeBasePage(object: Buffer, key: string): BasePage | BadObject {
  const page = openObject(pageKind, object);
  if (isBadObject(page)) return page;
  const { volumeId, serial, firstExtent } = page;
  const owner = { volumeId, line: "", archiverEpoch: 0 };
  const [start = ""] = basePageKey(owner, serial, firstExtent / extentsPerBasePage).split(".", 1);
  return key.startsWith(`${start}.`) ? page : bad("fields", `it is page ${start}`);
}

function baseMistake({ volumeId, s, e, sizeBytes, pages }: BaseContent): string | null {
  if (s > e) return `s ${s} after e ${e}`;
  if (pages.length !== basePagesOf(sizeBytes)) return `${pages.length} pages for ${sizeBytes} bytes`;
  const foreign = pages.findIndex((key, page) => key !== null && !isBasePageKey(volumeId, key, page));
  return foreign < 0 ? null : `pages[${foreign}] is not a key of page ${foreign}`;
}
