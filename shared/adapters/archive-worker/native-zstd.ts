/*
 * zstd by the library that Node itself is linked with, through its C interface: one context for a whole object and the caller's memory,
 * where node:zlib makes a context, a stream and a buffer for each frame (ADR 008). Called by tasks.ts on its own thread.
 */

import type { CompressInto } from "#shared/formats/object-room.ts";
import { library } from "#shared/native/library.ts";

export interface NativeZstd {
  readonly compressInto: CompressInto;
  /** Frees the context; the next frame makes another. A thread may be ended between tasks: nothing is left behind then. */
  release(): void;
}

/** Null where this process has no such functions: then node:zlib does it. */
export function nativeZstd(): NativeZstd | null {
  try {
    return bound();
  } catch {
    return null;
  }
}

function bound(): NativeZstd {
  const create = library.func("void *ZSTD_createCCtx(void)") as () => unknown;
  const free = library.func("size_t ZSTD_freeCCtx(void *context)") as (context: unknown) => number;
  const isError = library.func("unsigned int ZSTD_isError(size_t code)") as (code: number) => number;
  // The level of the call, zstd's own parameters for it and for the size: the frame is that of node:zlib.
  const compress = library.func(
    "size_t ZSTD_compressCCtx(void *context, void *into, size_t room, const void *raw, size_t bytes, int level)",
  ) as (
    context: unknown,
    into: Buffer,
    room: number,
    raw: Uint8Array,
    bytes: number,
    level: number,
  ) => number;
  let context: unknown = null;
  return {
    compressInto: (raw, into, level) => {
      context ??= create();
      // No memory for a context: the frame is stored as it is.
      if (context === null) return null;
      const bytes = compress(context, into, into.length, raw, raw.length, level);
      return isError(bytes) === 0 ? bytes : null;
    },
    release: () => {
      if (context !== null) free(context);
      context = null;
    },
  };
}
