/*
 * Scrub for other services: the storage nodes of a cluster run it on their replicas (services/storage/engine/replica-scrub.ts).
 * services/cli/commands/storage.ts hands it over.
 */
import type { ScrubRun } from "#shared/ports/scrub.ts";
import { Scrubber } from "./engine/scrubber.ts";

export const runScrub: ScrubRun = async (parts, subject, options) => {
  const scrubber = new Scrubber(parts, subject);
  return { report: await scrubber.scrub(options), busy: scrubber.busy };
};
