// Rows of docs/errors.md that a user can cause by a command line, its environment or an address: what is said, with which
// hint and exit code. bad-input.test.ts runs each of them and holds the page to them. `{D}` stands for the data directory
// of a stopped server with the volume `kept` (8 MiB), `{P}` for a port that another program listens on.

export interface WrongCommand {
  readonly id: string;
  readonly words: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly code: number;
  /** Lines of stderr, without `varve: `. */
  readonly says: readonly string[];
  readonly hint: string;
}

const usage = (id: string, words: string, says: string, hint: string): WrongCommand => ({
  id,
  words,
  code: 2,
  says: [says],
  hint,
});
const nothingStarted = "Nothing was started and nothing was changed. See: varve help up.";
const up = (id: string, words: string, says: string): WrongCommand =>
  usage(id, `up --data {D} ${words}`, says, nothingStarted);

export const wrongCommands: readonly WrongCommand[] = [
  usage(
    "cli-command",
    "vulome list",
    'there is no command "vulome"; did you mean "volume"?',
    "Commands: up, volume, apply, snapshot, history, changes, job, bucket, scrub, rescue, gateway, storage, archiver, api, node, replica, attachments, discover, attach, detach, log, image, doctor, version, help. See: varve help.",
  ),
  usage(
    "cli-action",
    "volume lst",
    'varve volume has no action "lst"; did you mean "list"?',
    "Actions: create, list, show, set, resize, delete, rollback, fill, tier, undelete, move, takeover. See: varve help volume.",
  ),
  usage(
    "cli-action-missing",
    "image",
    "varve image needs an action",
    "Actions: check, adopt, discard. See: varve help image.",
  ),
  usage(
    "cli-flag",
    "volume list --jsn",
    "varve volume list has no flag --jsn; did you mean --json?",
    "See: varve help volume list.",
  ),
  usage(
    "cli-flag-first",
    "--data {D} up",
    "--data stands before the command",
    "Write the command first: varve up --data DIR. See: varve help.",
  ),
  usage("cli-flag-value", "up --data", "--data needs a value: --data DIR", "See: varve help up."),
  usage("cli-flag-empty", "up --data=", "--data has an empty value: --data DIR", "See: varve help up."),
  usage(
    "cli-switch-value",
    "volume list --json=1",
    '--json takes no value, but got "1"',
    "See: varve help volume list.",
  ),
  usage(
    "cli-flag-twice",
    "up --data {D} --data {D}",
    "--data is given more than once",
    "See: varve help up.",
  ),
  usage("cli-argument-missing", "volume show", "NAME is missing: the volume", "See: varve help volume show."),
  usage(
    "cli-argument-extra",
    "volume show a b",
    '"b" is one argument too many',
    "See: varve help volume show.",
  ),
  {
    id: "cli-several",
    words: "volume create a b --sze 1G --api",
    code: 2,
    says: [
      "varve volume create has no flag --sze; did you mean --size?",
      "--api needs a value: --api URL",
      '"b" is one argument too many',
    ],
    hint: "See: varve help volume create.",
  },
  usage(
    "cli-size-missing",
    "volume create a --data {D}",
    "--size is missing: varve volume create a --size 10G",
    "See: varve help volume create.",
  ),
  usage(
    "cli-size",
    "volume create a --size big --data {D}",
    '--size: "big" is not a size',
    "Write a number with K, M, G, T or P (binary): 512M, 10G, 1.5T.",
  ),
  usage(
    "cli-durability",
    "volume create a --size 1G --durability fast --data {D}",
    '--durability: "fast" is neither write nor flush',
    "write: a reply means durable. flush: FLUSH and FUA mean durable, as with any disk's cache.",
  ),
  usage(
    "cli-reads",
    "volume set kept --reads fast --data {D}",
    '--reads: "fast" is neither available nor strict',
    "What a gateway that can't prove that it still serves the volume answers: its last state, or nothing.",
  ),
  usage(
    "volume-reads",
    "volume set kept --reads available --data {D}",
    "volume kept: reads of one machine are always strict",
    "reads: available is for a cluster, whose gateways may be cut off. Nothing was changed.",
  ),
  usage(
    "cli-api-and-data",
    "volume list --api http://127.0.0.1:1 --data {D}",
    "--api and --data exclude each other",
    "--api talks to a running server, --data works on the files of one that is stopped.",
  ),
  usage(
    "cli-api-address",
    "volume list --api ftp://x",
    '--api: "ftp://x" is not an http address',
    "For example: --api http://127.0.0.1:8080.",
  ),
  {
    id: "attach-flags",
    words: "attach kept --server nowhere --device /dev/sda --connections 99",
    code: 2,
    says: [
      '--server: "nowhere" is neither HOST:PORT, [IPV6]:PORT nor unix:PATH',
      '--device: "/dev/sda" is not /dev/nbdN',
      '--connections: "99" is not a number from 1 to 16',
    ],
    hint: "Nothing was attached. See: varve help attach.",
  },
  {
    id: "attach-no-gateway",
    words: "attach kept --server 127.0.0.1:1",
    code: 75,
    says: ["no NBD server at 127.0.0.1:1: nothing listens there"],
    hint: "Start one (varve up), or say where it is: --server HOST:PORT.",
  },
  {
    id: "detach-unknown",
    words: "detach none",
    code: 2,
    says: ["nothing is attached here as none"],
    hint: "Nothing is attached on this machine.",
  },
  {
    id: "cli-no-server",
    words: "volume list --api 127.0.0.1:1",
    code: 75,
    says: ["no Varve server at http://127.0.0.1:1: nothing listens there"],
    hint: "Start one (varve up), say where it is (--api URL or VARVE_API), or work on the files (--data DIR).",
  },
  usage(
    "volume-name",
    "volume create Disk --size 1G --data {D}",
    "volume name \"Disk\" must be made of a-z, 0-9, '.', '_' and '-', and start with a letter or digit (lower case)",
    "For example: disk0, vm-web.root, backup_2026.",
  ),
  usage(
    "volume-size",
    "volume create a --size 100 --data {D}",
    "volume size 100 is below the least size, 512 bytes",
    "Sizes are binary: 512M, 10G, 2T; 10G is 10 GiB.",
  ),
  usage(
    "volume-exists",
    "volume create kept --size 1G --data {D}",
    "a volume named kept exists already",
    "Choose another name, or delete that volume first: varve volume delete NAME.",
  ),
  usage(
    "volume-delete-offline",
    "volume delete kept --data {D}",
    "volume kept is archived in a bucket, which can't be told of its deletion while no server runs",
    "Start varve up with its bucket, then: varve volume delete kept. Where that bucket is gone for good, start varve up with " +
      "--bucket none instead. Nothing was changed.",
  ),
  usage("volume-unknown", "volume delete kep --data {D}", 'there is no volume named "kep"', "Volumes: kept."),
  usage(
    "volume-shrink",
    "volume resize kept --size 1M --data {D}",
    "volume kept has 8388608 bytes; 1048576 bytes would cut off its end",
    "Shrink the file system first, then say so with --shrink: what lies behind the new end is lost.",
  ),
  usage(
    "volume-stranger",
    "volume create stranger --size 1M --data {D}",
    "{D}/volumes/stranger exists, but the catalogue knows no volume stranger",
    "Move that directory away, or choose another name. Nothing in it was touched.",
  ),
  usage(
    "data-missing",
    "up",
    "--data: is missing; say where the volumes are or will be: --data DIR",
    nothingStarted,
  ),
  usage(
    "data-unknown",
    "volume list --data {D}/none",
    "there is no data directory {D}/none",
    "Check --data. varve up --data DIR makes a new one.",
  ),
  usage(
    "data-foreign",
    "up --data {D}/volumes/stranger",
    "{D}/volumes/stranger is not a Varve data directory: it holds letter.txt",
    "Give --data an empty or new directory, or one that varve up has made.",
  ),
  up("up-nbd-host", "--nbd 10809", '--nbd: "10809" has no host; write 127.0.0.1:10809'),
  up("up-nbd-form", "--nbd localhost", '--nbd: "localhost" is neither HOST:PORT, [IPV6]:PORT nor unix:PATH'),
  up(
    "up-nbd-port",
    "--nbd localhost:70000",
    '--nbd: "localhost:70000" has the port "70000"; ports are 1 to 65535',
  ),
  up(
    "up-nbd-path",
    "--nbd /run/v.sock",
    '--nbd: "/run/v.sock" is a path; for a unix socket write unix:/run/v.sock',
  ),
  up("up-nbd-twice", "--nbd a:1 --nbd a:1", '--nbd: "a:1" is given twice'),
  up(
    "up-http-unix",
    "--http unix:/x",
    '--http: "unix:/x" is a unix socket; the HTTP API listens on HOST:PORT, or is off',
  ),
  up("up-volume-form", "--volume disk0", '--volume: "disk0" is not NAME:SIZE; for example disk0:10G'),
  up("up-volume-name", "--volume :1G", '--volume: ":1G": the name "" is empty'),
  up(
    "up-volume-size",
    "--volume a:ten",
    '--volume: "a:ten": the size "ten" is not a size; write it like 10G',
  ),
  usage(
    "volume-set-nothing",
    "volume set kept --data {D}",
    "varve volume set kept sets nothing: give --durability, --reads, --history, --residency, --cold-after or --bucket-away",
    "See: varve help volume set.",
  ),
  usage(
    "volume-history-span",
    "volume set kept --history week --data {D}",
    '--history: "week" is not a span of time',
    "Write a number with s, m, h, d or w: 90s, 12h, 7d, 2w.",
  ),
  usage(
    "volume-residency",
    "volume set kept --residency cold --data {D}",
    '--residency: "cold" is neither full nor tiered',
    "full: all extents on this machine. tiered: what is cold is in the bucket only.",
  ),
  usage(
    "volume-bucket-away",
    "volume set kept --bucket-away wait --data {D}",
    '--bucket-away: "wait" is neither stop nor drop-history',
    "stop: refuse writes when the log is full. drop-history: write on, with a gap in the past.",
  ),
  usage(
    "volume-from-form",
    "volume create a --from kept",
    '--from: "kept" is not VOLUME@POINT',
    "For example: --from disk0@before-upgrade, disk0@lsn:120, disk0@2026-11-20T10:15:00Z.",
  ),
  usage(
    "volume-from-offline",
    "volume create a --from kept@lsn:1 --data {D}",
    "--from and --data exclude each other",
    "A past is read by a running server: start varve up, then leave out --data.",
  ),
  usage(
    "volume-rollback-to",
    "volume rollback kept",
    "--to is missing: varve volume rollback kept --to lsn:120",
    "A point is a snapshot's name, lsn:N, or a time with its zone. See: varve help volume rollback.",
  ),
  usage(
    "changes-from",
    "changes kept --to lsn:2",
    "--from is missing: varve changes kept --from lsn:120 --to lsn:2",
    "A point is a snapshot's name, lsn:N, or a time with its zone. See: varve help changes.",
  ),
  usage(
    "changes-to",
    "changes kept --from first",
    "--to is missing: varve changes kept --from first --to lsn:240",
    "A point is a snapshot's name, lsn:N, or a time with its zone. See: varve help changes.",
  ),
  up("up-bucket-path", "--bucket /backup", "--bucket: its URL is a path; write file:// in front of it"),
  up(
    "up-bucket-form",
    "--bucket ftp://x",
    "--bucket: its URL is neither file:///DIR nor s3://BUCKET/PREFIX?endpoint=...",
  ),
  up(
    "up-volume-option",
    "--volume a:1G,speed=9",
    '--volume: "a:1G,speed=9": there is no option "speed"; known: durability',
  ),
  up(
    "up-volume-durability",
    "--volume a:1G,durability=x",
    '--volume: "a:1G,durability=x": durability is write or flush, not "x"',
  ),
  up("up-volume-twice", "--volume a:1G --volume a:1G", "--volume: volume a is given twice"),
  up("up-limit-size", "--payload-max 1M", "--payload-max: 1M is not within 80 MiB and 16 GiB"),
  up(
    "up-limit-count",
    "--connections-max 0",
    '--connections-max: "0" is not a whole number within 1 and 65536',
  ),
  up("up-log-keep", "--log-max 1G --log-keep 1G", "--log-keep: 1 GiB is more than half of log-max, 1 GiB"),
  up(
    "up-bucket-max-none",
    "--bucket none --bucket-max 1G",
    "--bucket-max: limits a bucket, and --bucket none says that there is none",
  ),
  up(
    "up-upload-rate-directory",
    "--upload-rate 1M",
    "--upload-rate: limits an S3 bucket; this one is a directory",
  ),
  {
    id: "up-several",
    words: "up --nbd 1 --volume a",
    env: { VARVE_HTTP: "x", VARVE_LOG_MAX: "huge" },
    code: 2,
    says: [
      "--data: is missing; say where the volumes are or will be: --data DIR",
      '--nbd: "1" has no host; write 127.0.0.1:1',
      'VARVE_HTTP: "x" is neither HOST:PORT, [IPV6]:PORT nor unix:PATH',
      '--volume: "a" is not NAME:SIZE; for example disk0:10G',
      'VARVE_LOG_MAX: "huge" is not a size; write it like 512M or 10G',
    ],
    hint: nothingStarted,
  },
  usage(
    "up-volume-differs",
    "up --data {D} --nbd unix:{D}/n.sock --http off --volume kept:16M",
    "--volume: kept exists with 8M, not 16M",
    "Nothing was changed. To resize it: varve volume resize kept --size 16M.",
  ),
  usage(
    "up-volume-differs-durability",
    "up --data {D} --nbd unix:{D}/n.sock --http off --volume kept:8M,durability=flush",
    "--volume: kept exists with durability write, not flush",
    "Nothing was changed. To change it: varve volume set kept --durability flush.",
  ),
  usage(
    "up-nbd-taken",
    "up --data {D} --nbd 127.0.0.1:{P} --http off",
    "cannot listen on 127.0.0.1:{P}: EADDRINUSE",
    "Another program listens there. Stop it, or give another port.",
  ),
  usage(
    "up-http-taken",
    "up --data {D} --nbd unix:{D}/n.sock --http 127.0.0.1:{P}",
    "--http 127.0.0.1:{P} is in use by another program",
    "Stop that program (varve doctor names it), or choose another address: --http ADDR.",
  ),
  usage(
    "up-nbd-no-socket",
    "up --data {D} --nbd unix:{D}/catalog.json --http off",
    "{D}/catalog.json exists and is no socket",
    "Give another path for the NBD socket, or move that file away.",
  ),
];
