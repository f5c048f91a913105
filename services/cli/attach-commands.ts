/*
 * Entries of the command table for disks in the kernel of this machine: attach and detach. `varve attachments --local` is in
 * cluster-commands.ts. The work: commands/attach.ts. Spec: docs/specs/attach.md.
 */
import { type Command, json } from "./command.ts";

export const attachCommands: readonly Command[] = [
  {
    path: ["discover"],
    summary: "list gateways that announce themselves on this machine's networks, and their exports",
    detail: ["They do so only where they were started with --mdns. What answers is a hint, not a proof."],
    args: [],
    flags: [
      { name: "timeout", value: "SECONDS", summary: "wait so long for answers (default 2)" },
      {
        name: "interface",
        value: "ADDRESS",
        repeat: true,
        summary: "ask on the network of this address; may be repeated (default: all of this machine's)",
      },
      json,
    ],
    load: async () => (await import("./commands/discover.ts")).discover,
  },
  {
    path: ["attach"],
    summary: "give a volume, or its past, to this machine's kernel as a disk",
    detail: [
      "A mounted file system lives through a restart of the gateway and a move to another one: requests wait.",
      "Makes /dev/varve/VOLUME. A process stays in the background and renews the links; varve detach ends both.",
      "Needs root, the kernel module nbd and durability write. VOLUME@POINT is read-only.",
    ],
    args: [{ name: "VOLUME[@POINT]", summary: "the volume, as it is or was" }],
    flags: [
      {
        name: "server",
        value: "HOST:PORT",
        repeat: true,
        env: "VARVE_SERVER",
        summary:
          "the gateway's NBD address, or unix:PATH; the others are used when it is away (default 127.0.0.1:10809)",
      },
      { name: "device", value: "/dev/nbdN", summary: "this device (default: one that is free)" },
      {
        name: "connections",
        value: "N",
        summary: "links to the gateway, 1 to 16; not more than CPUs (default 1)",
      },
      {
        name: "timeout",
        value: "SECONDS",
        summary: "a request without an answer is asked again over a new link after this (default 4)",
      },
      {
        name: "dead",
        value: "SECONDS",
        summary: "requests wait so long for a gateway to come back, then fail (default 120)",
      },
      {
        name: "wait",
        value: "SECONDS",
        summary: "for a gateway that is still starting, as at boot (default 0)",
      },
      { name: "foreground", summary: "stay in this process instead of starting one in the background" },
      {
        name: "leave",
        summary: "on SIGTERM leave the disk attached (default: detach it unless it is in use)",
      },
      json,
    ],
    load: async () => (await import("./commands/attach.ts")).attach,
  },
  {
    path: ["detach"],
    summary: "take an attached disk from this machine's kernel",
    detail: [
      "Writes out what the kernel still holds. Refused while the disk is mounted or otherwise in use.",
    ],
    args: [{ name: "DISK", summary: "VOLUME[@POINT], /dev/nbdN or /dev/varve/NAME" }],
    flags: [{ name: "force", summary: "even while it is in use: who uses it gets I/O errors" }, json],
    load: async () => (await import("./commands/attach.ts")).detach,
  },
];
