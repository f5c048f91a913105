// A new raw image on a file store and the maker of its batches, for the raw file's own tests: raw-file.test.ts, raw-file-crashes.deep.test.ts.
import { MemoryFileStore } from "#shared/adapters/file-store/memory.ts";
import { RawFileImage } from "#shared/adapters/replica-image/raw-file.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import { SteppedRandom } from "../file-store/stepped-clock.ts";
import { BatchMaker } from "./batch-maker.ts";

export const volumeId = "5ca1ab1e00c0ffee";
export const directory = "/volume";
export const imagePath = "/volume/disk.raw";
export const checkpointPath = "/volume/disk.raw.checkpoint";
export const sizeBytes = 128 * 1024;

export async function newVolume(store: FileStore = new MemoryFileStore()) {
  await store.makeDirectory(directory);
  const options = { store, directory, volumeId };
  await RawFileImage.create({ ...options, sizeBytes });
  const maker = new BatchMaker(store, new SteppedRandom(1), sizeBytes);
  return { store, options, maker };
}
