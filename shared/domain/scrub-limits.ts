/*
 * The maxima of a scrub, as limits.scrub (limits.ts). docs/specs/retention.md, "Check, usage, scrub"; docs/specs/cluster.md#scrub.
 */
export const scrubLimits = {
  /** It reads so fast by default: a 100 GiB image in 3.6 hours, without being felt. */
  bytesPerSecond: 8 * 1024 * 1024,
  /** Replicas of a storage node that are scrubbed at once, 12 MiB each; others wait. */
  runsMax: 2,
  /** Extents that a storage node mends from others at once, 8 MiB each. */
  mendsMax: 1,
  /** Extents that are remembered to be looked at again, because they were written to at each look: 4 GiB of disk. */
  busyMax: 1024,
  /** A replica with more damaged extents is filled again: so its report, at most 200 bytes of each, fits a message. */
  damagedMax: 1000,
  /** A storage node ends a scrub that nobody asked about for so long: the api that began it is gone. */
  forgottenMs: 60_000,
} as const;
