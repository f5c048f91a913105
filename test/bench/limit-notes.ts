// Why a row stays below its target, in words, for as long as it does: the report prints a text only while its row is missed.
// Caller: report.ts. The figures behind a text come from the profile that `--profile ROW` keeps beside the result.

export interface LimitNote {
  /** A case of rows.ts, or another row's name: the part of a result's id before its peer. */
  readonly row: string;
  readonly text: string;
}

export const limitNotes: readonly LimitNote[] = [
  {
    row: "write-1m-d8-durable",
    text: `Each byte goes to the log and, by the page cache and the checkpoint's writeback, to the image; the peer writes it once. The
disk was given 1.5 to 1.7 times the payload's bytes here, against 0.9 times for the peer (three runs each, counted by the kernel over the
same windows), and took 950 to 1,100 MB/s of Varve's and 830 to 1,400 MB/s of the peer's. The server's processor time is 1.3 to 1.5 ms per
MiB against 0.5 to 0.7 ms; the loop itself is idle two thirds of the time. Groups of 1, 2, 4 and 8 MiB with two to four under way
differed by less than the noise. What would help is to write such data once: an image that takes its blocks from the log.`,
  },
  {
    row: "mixed-128k-d16-flush",
    text: `The server takes 130 to 145 µs of processor time per request, the peer 65 to 100 µs, nearly all of it copies between page
cache and socket. Varve makes the same copies on its one loop (70 to 100 µs) and writes each of the 30 % writes twice, to the log on a
pool thread (20 to 50 µs, writeback included) and to the image on the image thread (13 to 20 µs), both by the page cache. Log
writes of up to 1.2 MiB on the loop instead of a thread took 10 to 15 % less processor time and moved the ratio by less than the noise.`,
  },
  {
    row: "hot-beside-cold",
    text: `The hot reader's request waits while the one loop starts and answers cold ones; nbdkit has a thread for each. Of a cold
read's 40 µs of the server's processor time three quarters are the kernel's, most of it on the loop: 12 % of all go into telling the
virtual disk of each transfer, 10 % into wake-ups (the client and pool threads), 7 % into copying. Handling at most two or four cold requests per turn of the loop
did not lower the hot reader's p50 and cost cold reads. What would help is to start transfers on another thread, in batches.`,
  },
  {
    row: "write-4k-d32-durable",
    text: "Between pairs the ratio to nbd-server swings by a third, with how long the shared disk takes for a sync; the median stands at the target.",
  },
];
