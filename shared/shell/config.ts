/*
 * What a user may set for `varve up`, read from flags and environment (services/cli/command-line.ts gives both by flag
 * name) and checked against domain/limits.ts. Every mistake is collected and reported together: nobody should have to
 * start five times to learn of five mistakes. Next: services/cli/commands/up.ts.
 */
import { isIpv4 } from "#shared/domain/announcement.ts";
import { parseBucketUrl } from "#shared/domain/bucket-url.ts";
import { parseByteSize, readableByteSize } from "#shared/domain/byte-size.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import {
  durabilities,
  isDurability,
  type VolumeDurability,
  volumeNameMistake,
  volumeSizeMistake,
} from "#shared/domain/volume.ts";
import { addressText, type ListenAddress, parseListenAddress } from "./listen-address.ts";

export interface VolumeWish {
  readonly name: string;
  readonly sizeBytes: number;
  /** Null: not said; `write` for a new volume, anything for one that exists. */
  readonly durability: VolumeDurability | null;
}

export interface UpConfig {
  readonly dataDirectory: string;
  readonly nbd: readonly ListenAddress[];
  /** Null: off. */
  readonly http: Extract<ListenAddress, { kind: "tcp" }> | null;
  readonly volumes: readonly VolumeWish[];
  /** URL of the bucket; `default`: a directory in the data directory; null: none, and so no history. */
  readonly bucket: string | null;
  readonly past: PastLimits;
  readonly payloadBytesMax: number;
  readonly logBytesMax: number;
  readonly logRetainedBytes: number;
  readonly connectionsMax: number;
  /** Null: it announces itself nowhere. */
  readonly mdns: MdnsConfig | null;
}

/** Where a gateway announces itself, and what (docs/specs/discover.md). */
export interface MdnsConfig {
  /** IPv4 address of this machine. */
  readonly onAddress: string;
  /** Where clients connect. */
  readonly address: string;
  readonly port: number;
}

/** What the past may take; null: no limit. */
export interface PastLimits {
  /** Bytes of objects that manifests name: beyond it the oldest history goes before its time. */
  readonly bucketBytesMax: number | null;
  /** Bytes a second to and from the bucket, and by each volume's background filler. */
  readonly uploadBytesPerSecond: number | null;
  readonly downloadBytesPerSecond: number | null;
  readonly fillBytesPerSecond: number | null;
  /** Room of one tiered volume's image: beyond it the coldest extents leave before their time. */
  readonly imageBytesMax: number | null;
}

/** Flag values by name, and where each came from (`--nbd`, `VARVE_NBD`). */
export interface ConfigSource {
  readonly values: ReadonlyMap<string, readonly string[]>;
  readonly sources: ReadonlyMap<string, string>;
}

export const defaultNbdAddress = "127.0.0.1:10809";
/** A directory beside the volumes. */
export const defaultBucket = "default";
export const defaultHttpAddress = "127.0.0.1:8080";

export function readUpConfig(source: ConfigSource): UpConfig {
  const reader = new ConfigReader(source);
  const dataDirectory = reader.dataDirectory();
  const nbd = reader.nbd();
  const config: UpConfig = {
    dataDirectory,
    nbd,
    mdns: reader.mdns(nbd),
    http: reader.http(),
    volumes: reader.volumes(),
    bucket: reader.bucket(),
    past: reader.past(),
    payloadBytesMax: reader.size("payload-max", limits.payloadBytesMax, 80 * 2 ** 20, 16 * 2 ** 30),
    logBytesMax: reader.size("log-max", limits.logBytesMaxDefault, 4 * limits.logSegmentBytes, 2 ** 50),
    logRetainedBytes: reader.size("log-keep", limits.logRetainedBytesDefault, 0, 2 ** 50),
    connectionsMax: reader.count("connections-max", limits.nbdConnectionsMax, 1, 65_536),
  };
  if (config.logRetainedBytes > config.logBytesMax / 2) {
    reader.mistake(
      "log-keep",
      `${readableByteSize(config.logRetainedBytes)} is more than half of log-max, ${readableByteSize(config.logBytesMax)}`,
    );
  }
  reader.finish();
  return config;
}

/** Collects mistakes; a value with a mistake reads as its default, and finish() throws. */
export class ConfigReader {
  private readonly source: ConfigSource;
  private readonly command: string;
  private readonly mistakes: string[];

  /** `command`: whose help to point to. `mistakes`: found before, in the file that the values come from. */
  constructor(source: ConfigSource, command = "up", mistakes: readonly string[] = []) {
    this.source = source;
    this.command = command;
    this.mistakes = [...mistakes];
  }

  mistake(flag: string, what: string): void {
    this.mistakes.push(`${this.source.sources.get(flag) ?? `--${flag}`}: ${what}`);
  }

  finish(): void {
    if (this.mistakes.length === 0) return;
    throw new VarveError("ConfigError", "Invalid", this.mistakes.join("\n"), {
      hint: `Nothing was started and nothing was changed. See: varve help ${this.command}.`,
      fields: { mistakes: this.mistakes.length },
    });
  }

  dataDirectory(): string {
    const path = this.one("data");
    if (path !== undefined) return path === "/" ? path : path.replace(/\/+$/, "");
    this.mistake("data", "is missing; say where the volumes are or will be: --data DIR");
    return "";
  }

  nbd(): readonly ListenAddress[] {
    const texts = this.all("nbd") ?? [defaultNbdAddress];
    const seen = new Set<string>();
    return texts.flatMap((text) => {
      const address = this.address("nbd", text);
      if (address === null) return [];
      if (seen.has(addressText(address))) this.mistake("nbd", `"${text}" is given twice`);
      seen.add(addressText(address));
      return [address];
    });
  }

  /** `reached`: addresses that clients may use, the first TCP one is announced. */
  mdns(reached: readonly ListenAddress[]): MdnsConfig | null {
    const onAddress = this.one("mdns");
    if (onAddress === undefined || onAddress === "off") return null;
    const tcp = reached.find((address) => address.kind === "tcp");
    if (!isIpv4(onAddress)) {
      this.mistake(
        "mdns",
        `"${onAddress}" is no IPv4 address; name that of the network to announce on, or off`,
      );
    } else if (tcp === undefined) {
      this.mistake("mdns", "there is no TCP address to announce; listen on one: --nbd HOST:PORT");
    } else {
      const everywhere = tcp.host === "0.0.0.0" || tcp.host === "::";
      const address = everywhere ? onAddress : tcp.host === "localhost" ? "127.0.0.1" : tcp.host;
      if (isIpv4(address)) return { onAddress, address, port: tcp.port };
      this.mistake("mdns", `"${tcp.host}" is no IPv4 address that could be announced`);
    }
    return null;
  }

  http(): UpConfig["http"] {
    const text = this.one("http") ?? defaultHttpAddress;
    if (text === "off") return null;
    const address = this.address("http", text);
    if (address?.kind !== "unix") return address;
    this.mistake("http", `"${text}" is a unix socket; the HTTP API listens on HOST:PORT, or is off`);
    return null;
  }

  /** See UpConfig.bucket. */
  bucket(): string | null {
    const text = this.one("bucket") ?? defaultBucket;
    if (text === "none") return null;
    if (text === defaultBucket) return text;
    const address = parseBucketUrl(text);
    // Not the text itself: people put secrets there, and messages end up in logs.
    if (typeof address === "string") this.mistake("bucket", `its URL ${address}`);
    return text;
  }

  /** Of the bucket that bucket() reads. */
  past(): PastLimits {
    this.pastFlags();
    const most = 2 ** 50;
    const rate = (flag: string): number | null =>
      this.sizeOrNone(flag, limits.bandwidthBytesPerSecondMin, most);
    return {
      bucketBytesMax: this.sizeOrNone("bucket-max", limits.bucketBytesMaxLeast, most),
      uploadBytesPerSecond: rate("upload-rate"),
      downloadBytesPerSecond: rate("download-rate"),
      fillBytesPerSecond: rate("fill-rate"),
      imageBytesMax: this.sizeOrNone("image-max", limits.imageBytesMaxLeast, most),
    };
  }

  /** A limit that can't limit anything here is a misunderstanding. */
  private pastFlags(): void {
    const bucket = this.one("bucket") ?? defaultBucket;
    for (const flag of ["bucket-max", "upload-rate", "download-rate", "fill-rate", "image-max"]) {
      if (this.one(flag) === undefined) continue;
      if (bucket === "none") this.mistake(flag, "limits a bucket, and --bucket none says that there is none");
      else if (flag.endsWith("load-rate") && !bucket.startsWith("s3:")) {
        this.mistake(flag, "limits an S3 bucket; this one is a directory");
      }
    }
  }

  volumes(): readonly VolumeWish[] {
    const wishes: VolumeWish[] = [];
    for (const text of this.all("volume") ?? []) {
      const wish = this.volume(text);
      if (wish === null) continue;
      if (wishes.some((other) => other.name === wish.name)) {
        this.mistake("volume", `volume ${wish.name} is given twice`);
      }
      wishes.push(wish);
    }
    return wishes;
  }

  size(flag: string, fallback: number, least: number, greatest: number): number {
    const text = this.one(flag);
    if (text === undefined) return fallback;
    const bytes = parseByteSize(text);
    if (bytes === null) {
      this.mistake(flag, `"${text}" is not a size; write it like 512M or 10G`);
    } else if (bytes < least || bytes > greatest) {
      this.mistake(
        flag,
        `${text} is not within ${readableByteSize(least)} and ${readableByteSize(greatest)}`,
      );
    } else {
      return bytes;
    }
    return fallback;
  }

  sizeOrNone(flag: string, least: number, greatest: number): number | null {
    return this.one(flag) === undefined ? null : this.size(flag, least, least, greatest);
  }

  count(flag: string, fallback: number, least: number, greatest: number): number {
    const text = this.one(flag);
    if (text === undefined) return fallback;
    const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
    if (value >= least && value <= greatest) return value;
    this.mistake(flag, `"${text}" is not a whole number within ${least} and ${greatest}`);
    return fallback;
  }

  private volume(text: string): VolumeWish | null {
    const [head = "", ...options] = text.split(",");
    const [name = "", size, ...rest] = head.split(":");
    const before = this.mistakes.length;
    const nameMistake = volumeNameMistake(name);
    if (nameMistake !== null) this.mistake("volume", `"${text}": the name "${name}" ${nameMistake}`);
    let sizeBytes = 0;
    if (size === undefined || rest.length > 0) {
      this.mistake("volume", `"${text}" is not NAME:SIZE; for example disk0:10G`);
    } else {
      sizeBytes = this.volumeSize(text, size);
    }
    let durability: VolumeDurability | null = null;
    for (const option of options) {
      const [key, value = ""] = option.split("=", 2);
      if (key !== "durability") {
        this.mistake("volume", `"${text}": there is no option "${key}"; known: durability`);
      } else if (!isDurability(value)) {
        this.mistake("volume", `"${text}": durability is ${durabilities.join(" or ")}, not "${value}"`);
      } else {
        durability = value;
      }
    }
    return this.mistakes.length > before ? null : { name, sizeBytes, durability };
  }

  private volumeSize(text: string, size: string): number {
    const bytes = parseByteSize(size);
    const mistake = bytes === null ? "is not a size; write it like 10G" : volumeSizeMistake(bytes);
    if (mistake !== null) this.mistake("volume", `"${text}": the size "${size}" ${mistake}`);
    return bytes ?? 0;
  }

  protected address(flag: string, text: string): ListenAddress | null {
    const address = parseListenAddress(text);
    if (typeof address !== "string") return address;
    this.mistake(flag, `"${text}" ${address}`);
    return null;
  }

  protected one(flag: string): string | undefined {
    return this.source.values.get(flag)?.[0];
  }

  protected all(flag: string): readonly string[] | undefined {
    return this.source.values.get(flag);
  }
}
