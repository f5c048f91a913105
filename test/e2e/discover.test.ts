// `varve discover` over loopback: two servers that announce themselves are found with their exports, as they are at that moment; one that was
// not told to has no UDP socket at all, and those that were have one, bound to the group's address.
import { execFileSync } from "node:child_process";
import { createSocket } from "node:dgram";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { Announcement } from "#shared/domain/announcement.ts";
import { freePort } from "../tools/free-port.ts";
import { inTemporaryDirectory, varve, varveJson } from "../tools/varve-command.ts";
import { VarveProcess } from "../tools/varve-process.ts";

/** Local addresses of the UDP sockets of a process, as the kernel writes them. */
function udpOf(pid: number): readonly string[] {
  const inodes = new Set(
    readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
      try {
        return [/^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1] ?? ""];
      } catch {
        return []; // closed meanwhile
      }
    }),
  );
  return ["udp", "udp6"].flatMap((table) =>
    readFileSync(`/proc/net/${table}`, "utf8")
      .split("\n")
      .slice(1)
      .map((row) => row.trim().split(/\s+/))
      .filter((columns) => inodes.has(columns[9] ?? "-"))
      .map((columns) => columns[1] ?? ""),
  );
}

/** A question that can't be answered: no socket sends from port 0, whoever may write packets does. */
function askFromPortZero(): void {
  if (process.getuid?.() !== 0) {
    console.log("a raw socket needs root: the question from port 0 is left out");
    return;
  }
  const python = `
import socket, struct
question = struct.pack(">6H", 0, 0, 1, 0, 0, 0) + b"\\x04_nbd\\x04_tcp\\x05local\\x00" + struct.pack(">2H", 12, 1)
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
raw.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
raw.sendto(struct.pack(">4H", 0, 5353, 8 + len(question), 0) + question, ("224.0.0.251", 0))`;
  execFileSync("python3", ["-c", python]);
}

test("finds those that announce themselves, and nobody else", async () => {
  await inTemporaryDirectory(async (directory) => {
    const http = `127.0.0.1:${await freePort()}`;
    const ports = [await freePort(), await freePort(), await freePort()];
    const start = async (index: number, args: readonly string[], more: object = {}): Promise<VarveProcess> =>
      VarveProcess.start({
        dataDir: join(directory, `data-${index}`),
        nbd: [`127.0.0.1:${ports[index]}`],
        volumes: [`disk${index}:16M`],
        args,
        ...more,
      });
    const servers = await Promise.all([
      start(0, ["--mdns", "127.0.0.1"], { http }),
      start(1, [], { env: { VARVE_MDNS: "127.0.0.1" } }),
      start(2, []),
    ]);
    try {
      // 224.0.0.251:5353, the group alone.
      expect(servers.map(({ pid }) => udpOf(pid))).toEqual([["FB0000E0:14E9"], ["FB0000E0:14E9"], []]);
      const found = async (): Promise<unknown> => {
        const all = await varveJson<readonly Announcement[]>(["discover", "--interface", "127.0.0.1"]);
        return all
          .filter(({ port }) => ports.includes(port))
          .map(({ address, port, exports }) => [address, ports.indexOf(port), exports] as const)
          .sort((a, b) => a[1] - b[1]);
      };
      expect(await found()).toEqual([
        ["127.0.0.1", 0, ["disk0"]],
        ["127.0.0.1", 1, ["disk1"]],
      ]);
      askFromPortZero();
      await varveJson(["volume", "create", "later", "--size", "16M", "--api", `http://${http}`]);
      await servers[1]?.stop();
      expect(await found()).toEqual([["127.0.0.1", 0, ["disk0", "later"]]]);
      const shown = await varve(["discover", "--timeout", "1"]);
      expect(shown.stdout).toMatch(new RegExp(`127\\.0\\.0\\.1:${ports[0]} .* disk0, later`));
    } finally {
      await Promise.all(servers.map(async (server) => server.stop()));
    }
    // Somebody has the port for himself alone: said, and nothing is served.
    const other = createSocket("udp4");
    await new Promise<void>((resolve, reject) => {
      other.once("error", reject);
      other.bind(5353, resolve);
    });
    const args = [
      "up",
      "--data",
      join(directory, "data-0"),
      "--nbd",
      `127.0.0.1:${ports[0]}`,
      "--http",
      "off",
    ];
    const refused = await varve([...args, "--mdns", "127.0.0.1"]);
    other.close();
    expect([refused.code, refused.stderr]).toEqual([
      75,
      expect.stringContaining("mDNS on 127.0.0.1: bind EADDRINUSE"),
    ]);
    const wrong = await varve(["discover", "--interface", "lan", "--timeout", "soon"]);
    expect([wrong.code, wrong.stderr.split("\n").slice(0, 2)]).toEqual([
      2,
      [
        'varve: --interface: "lan" is no IPv4 address',
        'varve: --timeout: "soon" is not a number of seconds up to 60',
      ],
    ]);
    const strange = await varve(["discover", "--interface", "198.51.100.7"]);
    expect([strange.code, strange.stderr]).toEqual([
      2,
      expect.stringContaining("mDNS: 198.51.100.7 is no IPv4 address of this machine"),
    ]);
  });
}, 60_000);
