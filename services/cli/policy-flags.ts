/*
 * A volume's history policy from the command line, in the API's form. `volume create` and `volume set` read it; what may stand
 * there is checked where the volume is changed, but for words that could not be sent.
 */
import type { ApiPolicy } from "#shared/api/http-api.ts";
import { type ResidencyPolicy, residencies } from "#shared/domain/archive.ts";
import { timeSpanFrom } from "#shared/domain/time-span.ts";
import { type CommandLine, UsageError } from "./command-line.ts";

export function policyOf(line: CommandLine): ApiPolicy {
  const one = (flag: string): string | undefined => line.values.get(flag)?.[0];
  const history = one("history");
  const residency = one("residency");
  const coldAfter = one("cold-after");
  const bucketAway = one("bucket-away");
  return {
    ...(history === undefined ? {} : { history: timeSpanFrom(history, "--history") }),
    ...(residency === undefined ? {} : { residency: residencyOf(residency) }),
    ...(coldAfter === undefined ? {} : { coldAfter: timeSpanFrom(coldAfter, "--cold-after") }),
    ...(bucketAway === undefined ? {} : { bucketAway: bucketAwayOf(bucketAway) }),
  };
}

function residencyOf(text: string): ResidencyPolicy {
  const found = residencies.find((one) => one === text);
  if (found !== undefined) return found;
  throw new UsageError(
    [`--residency: "${text}" is neither ${residencies.join(" nor ")}`],
    "full: all extents on this machine. tiered: what is cold is in the bucket only.",
  );
}

function bucketAwayOf(text: string): "stop" | "drop history" {
  if (text === "stop") return "stop";
  if (text === "drop-history") return "drop history";
  throw new UsageError(
    [`--bucket-away: "${text}" is neither stop nor drop-history`],
    "stop: refuse writes when the log is full. drop-history: write on, with a gap in the past.",
  );
}
