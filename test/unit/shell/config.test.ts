// What a user may set for `varve up`: addresses, volumes, limits. Each wrong value is named with where it came from, and all
// of them at once. Pure: no process, no file.
// The same messages on the real command: test/e2e/bad-input.test.ts.
import { describe, expect, test } from "vitest";
import { exactByteSize, parseByteSize, readableByteSize } from "#shared/domain/byte-size.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import { readUpConfig } from "#shared/shell/config.ts";
import { addressText, isLoopback, nbdUri, parseListenAddress } from "#shared/shell/listen-address.ts";

const source = (values: Record<string, string[]>, from: Record<string, string> = {}) => ({
  values: new Map(Object.entries(values)),
  sources: new Map(Object.keys(values).map((name) => [name, from[name] ?? `--${name}`])),
});
const mistakes = (values: Record<string, string[]>, from: Record<string, string> = {}): string[] => {
  try {
    readUpConfig(source(values, from));
  } catch (error) {
    if (error instanceof VarveError && error._tag === "ConfigError") return error.message.split("\n");
    throw error;
  }
  return [];
};

describe("the configuration of varve up", () => {
  test("has defaults for everything but the data directory", () => {
    expect(readUpConfig(source({ data: ["/d/"] }))).toEqual({
      dataDirectory: "/d",
      nbd: [{ kind: "tcp", host: "127.0.0.1", port: 10809 }],
      http: { kind: "tcp", host: "127.0.0.1", port: 8080 },
      volumes: [],
      bucket: "default",
      past: {
        bucketBytesMax: null,
        uploadBytesPerSecond: null,
        downloadBytesPerSecond: null,
        fillBytesPerSecond: null,
        imageBytesMax: null,
      },
      payloadBytesMax: limits.payloadBytesMax,
      logBytesMax: limits.logBytesMaxDefault,
      logRetainedBytes: limits.logRetainedBytesDefault,
      connectionsMax: limits.nbdConnectionsMax,
      mdns: null,
    });
  });

  test("reads all it is given", () => {
    const config = readUpConfig(
      source({
        data: ["d"],
        nbd: ["unix:/run/v.sock", "[::1]:10809"],
        http: ["off"],
        volume: ["a:1G", "b:512,durability=flush"],
        bucket: ["s3://disks/varve?endpoint=http://127.0.0.1:9000"],
        "bucket-max": ["200G"],
        "upload-rate": ["10M"],
        "download-rate": ["20M"],
        "fill-rate": ["5M"],
        "image-max": ["50G"],
        "payload-max": ["256M"],
        "log-max": ["1G"],
        "log-keep": ["0"],
        "connections-max": ["7"],
      }),
    );
    expect(config).toEqual({
      dataDirectory: "d",
      nbd: [
        { kind: "unix", path: "/run/v.sock" },
        { kind: "tcp", host: "::1", port: 10809 },
      ],
      http: null,
      volumes: [
        { name: "a", sizeBytes: 1024 ** 3, durability: null },
        { name: "b", sizeBytes: 512, durability: "flush" },
      ],
      bucket: "s3://disks/varve?endpoint=http://127.0.0.1:9000",
      past: {
        bucketBytesMax: 200 * 1024 ** 3,
        uploadBytesPerSecond: 10 * 1024 ** 2,
        downloadBytesPerSecond: 20 * 1024 ** 2,
        fillBytesPerSecond: 5 * 1024 ** 2,
        imageBytesMax: 50 * 1024 ** 3,
      },
      payloadBytesMax: 256 * 1024 ** 2,
      logBytesMax: 1024 ** 3,
      logRetainedBytes: 0,
      connectionsMax: 7,
      mdns: null,
    });
  });

  test("limits of the past that limit nothing are mistakes, all told at once", () => {
    expect(
      mistakes({ data: ["d"], "bucket-max": ["1M"], "fill-rate": ["slow"], "image-max": ["1K"] }),
    ).toEqual([
      "--bucket-max: 1M is not within 256 MiB and 1 PiB",
      '--fill-rate: "slow" is not a size; write it like 512M or 10G',
      "--image-max: 1K is not within 64 MiB and 1 PiB",
    ]);
    expect(mistakes({ data: ["d"], "upload-rate": ["1M"], "download-rate": ["1M"] })).toEqual([
      "--upload-rate: limits an S3 bucket; this one is a directory",
      "--download-rate: limits an S3 bucket; this one is a directory",
    ]);
    expect(mistakes({ data: ["d"], bucket: ["none"], "bucket-max": ["1G"], "fill-rate": ["1M"] })).toEqual([
      "--bucket-max: limits a bucket, and --bucket none says that there is none",
      "--fill-rate: limits a bucket, and --bucket none says that there is none",
    ]);
  });

  test("none is no bucket; a wrong URL is not repeated, because secrets stand in them", () => {
    expect(readUpConfig(source({ data: ["d"], bucket: ["none"] })).bucket).toBeNull();
    const secret = source({ data: ["d"], bucket: ["s3://key:secret@host/b"] });
    expect(() => readUpConfig(secret)).toThrow("--bucket: its URL");
    expect(() => readUpConfig(secret)).not.toThrow("secret@");
  });

  const wrong: readonly (readonly [string, string, string])[] = [
    ["nbd", "10809", '--nbd: "10809" has no host; write 127.0.0.1:10809'],
    [
      "nbd",
      ":10809",
      '--nbd: ":10809" has no host; write 127.0.0.1:10809, or 0.0.0.0:10809 for all networks',
    ],
    ["nbd", "localhost", '--nbd: "localhost" is neither HOST:PORT, [IPV6]:PORT nor unix:PATH'],
    ["nbd", "localhost:0", '--nbd: "localhost:0" has the port "0"; ports are 1 to 65535'],
    ["nbd", "localhost:99999", '--nbd: "localhost:99999" has the port "99999"; ports are 1 to 65535'],
    ["nbd", "unix:", '--nbd: "unix:" has no path behind unix:'],
    ["nbd", "/run/v.sock", '--nbd: "/run/v.sock" is a path; for a unix socket write unix:/run/v.sock'],
    ["http", "unix:/x", '--http: "unix:/x" is a unix socket; the HTTP API listens on HOST:PORT, or is off'],
    ["volume", "disk0", '--volume: "disk0" is not NAME:SIZE; for example disk0:10G'],
    ["volume", "disk0:ten", '--volume: "disk0:ten": the size "ten" is not a size; write it like 10G'],
    ["volume", "disk0:100", '--volume: "disk0:100": the size "100" is below the least size, 512 bytes'],
    ["volume", "disk0:2P", '--volume: "disk0:2P": the size "2P" is above the greatest size, 1 PiB'],
    ["volume", "disk0:1001", '--volume: "disk0:1001": the size "1001" is not a multiple of 512 bytes'],
    ["volume", "a:1G,durability=x", '--volume: "a:1G,durability=x": durability is write or flush, not "x"'],
    ["volume", "a:1G,speed=9", '--volume: "a:1G,speed=9": there is no option "speed"; known: durability'],
    ["payload-max", "lots", '--payload-max: "lots" is not a size; write it like 512M or 10G'],
    ["payload-max", "1M", "--payload-max: 1M is not within 80 MiB and 16 GiB"],
    ["connections-max", "0", '--connections-max: "0" is not a whole number within 1 and 65536'],
    ["connections-max", "1e3", '--connections-max: "1e3" is not a whole number within 1 and 65536'],
  ];
  test.each(wrong)("--%s %s", (flag, value, mistake) => {
    expect(mistakes({ data: ["d"], [flag]: [value] })).toEqual([mistake]);
  });

  test("names the rule that a volume name breaks", () => {
    expect(mistakes({ data: ["d"], volume: ["Disk:1G"] })[0]).toContain(
      'the name "Disk" must be made of a-z',
    );
    expect(mistakes({ data: ["d"], volume: [":1G"] })[0]).toContain('the name "" is empty');
    expect(mistakes({ data: ["d"], volume: ["../x:1G"] })[0]).toContain('the name "../x" must be made of');
  });

  test("refuses the same address or volume twice, and more history than log", () => {
    expect(mistakes({ data: ["d"], nbd: ["a:1", "a:1"] })).toEqual(['--nbd: "a:1" is given twice']);
    expect(mistakes({ data: ["d"], volume: ["a:1G", "a:2G"] })).toEqual([
      "--volume: volume a is given twice",
    ]);
    expect(mistakes({ data: ["d"], "log-max": ["1G"], "log-keep": ["600M"] })).toEqual([
      "--log-keep: 600 MiB is more than half of log-max, 1 GiB",
    ]);
  });

  test("announces by mDNS only what clients can reach, and only when told to", () => {
    const mdns = (nbd: string[], onAddress: string) =>
      readUpConfig(source({ data: ["d"], nbd, mdns: [onAddress] })).mdns;
    expect(mdns(["10.0.0.5:1"], "off")).toBeNull();
    expect(mdns(["unix:/run/v.sock", "10.0.0.5:1"], "10.0.0.5")).toEqual({
      onAddress: "10.0.0.5",
      address: "10.0.0.5",
      port: 1,
    });
    expect(mdns(["0.0.0.0:2"], "10.0.0.5")).toMatchObject({ address: "10.0.0.5", port: 2 });
    expect(mdns(["localhost:3"], "127.0.0.1")).toMatchObject({ address: "127.0.0.1", port: 3 });
    const said = (nbd: string[], onAddress: string) => mistakes({ data: ["d"], nbd, mdns: [onAddress] });
    expect(said(["1.2.3.4:1"], "eth0")).toEqual([
      '--mdns: "eth0" is no IPv4 address; name that of the network to announce on, or off',
    ]);
    expect(said(["unix:/run/v.sock"], "10.0.0.5")).toEqual([
      "--mdns: there is no TCP address to announce; listen on one: --nbd HOST:PORT",
    ]);
    expect(said(["disk.lan:1"], "10.0.0.5")).toEqual([
      '--mdns: "disk.lan" is no IPv4 address that could be announced',
    ]);
  });

  test("reports every mistake, each with where it came from", () => {
    expect(mistakes({ nbd: ["1"], volume: ["a"], http: ["x"] }, { http: "VARVE_HTTP" })).toEqual([
      "--data: is missing; say where the volumes are or will be: --data DIR",
      '--nbd: "1" has no host; write 127.0.0.1:1',
      'VARVE_HTTP: "x" is neither HOST:PORT, [IPV6]:PORT nor unix:PATH',
      '--volume: "a" is not NAME:SIZE; for example disk0:10G',
    ]);
  });
});

describe("addresses", () => {
  test("are written as they are read", () => {
    for (const text of ["127.0.0.1:1", "[::1]:10809", "unix:/a b", "host.lan:65535"]) {
      const address = parseListenAddress(text);
      if (typeof address === "string") throw new Error(address);
      expect(addressText(address)).toBe(text);
    }
    expect(parseListenAddress(`unix:${"x".repeat(108)}`)).toContain("at most 107");
  });

  test("know what is reachable from outside", () => {
    const loopback = (text: string): boolean => {
      const address = parseListenAddress(text);
      return typeof address !== "string" && isLoopback(address);
    };
    for (const text of ["127.0.0.1:1", "127.9.9.9:1", "localhost:1", "[::1]:1", "unix:/x"]) {
      expect(loopback(text), text).toBe(true);
    }
    for (const text of ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "host.lan:1", "1270.0.0.1:1"]) {
      expect(loopback(text), text).toBe(false);
    }
  });

  test("make NBD URIs that clients can use", () => {
    expect(nbdUri({ kind: "tcp", host: "0.0.0.0", port: 1 }, "a")).toBe("nbd://127.0.0.1:1/a");
    expect(nbdUri({ kind: "tcp", host: "::1", port: 1 }, "a")).toBe("nbd://[::1]:1/a");
    expect(nbdUri({ kind: "unix", path: "/a b?" }, "v")).toBe("nbd+unix:///v?socket=/a%20b%3F");
  });
});

describe("sizes", () => {
  test.each([
    ["512", 512],
    ["10G", 10 * 2 ** 30],
    ["10g", 10 * 2 ** 30],
    ["10GiB", 10 * 2 ** 30],
    ["10 GB", 10 * 2 ** 30],
    ["1.5M", 1.5 * 2 ** 20],
    ["1P", 2 ** 50],
    ["0", 0],
  ])("%s", (text, bytes) => {
    expect(parseByteSize(text)).toBe(bytes);
  });

  test.each(["", "G", "-1", "1.0001K", "1e3", "10X", "9999999P", "0x10", "1,5G"])("%s is none", (text) => {
    expect(parseByteSize(text)).toBeNull();
  });

  test("are written exactly, and readably", () => {
    for (const bytes of [0, 512, 1536, 2 ** 30, 10 * 2 ** 30, 2 ** 50, 2 ** 53 - 1]) {
      expect(parseByteSize(exactByteSize(bytes))).toBe(bytes);
    }
    expect(exactByteSize(10 * 2 ** 30)).toBe("10G");
    expect(readableByteSize(1536)).toBe("1.50 KiB");
    expect(readableByteSize(80 * 2 ** 20)).toBe("80 MiB");
    expect(readableByteSize(7)).toBe("7 B");
  });
});
