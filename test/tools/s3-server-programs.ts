// How each kind of S3 server runs for a test: its program, its arguments, what must be made before its first start. Called by
// s3-servers.ts. Ceph is a cluster of three processes on one machine: monitor, one OSD on a sparse file, gateway.
import { execFile } from "node:child_process";
import { randomUUID } from "node:crypto";
import { access, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { serverBinary, serverSources } from "../../scripts/test-server-binary.ts";

const run = promisify(execFile);

export type S3ServerName = "seaweedfs" | "versitygw" | "minio" | "ceph";

export interface ServerContext {
  readonly binary: string;
  /** The server's own; `data` in it exists. */
  readonly directory: string;
  readonly host: string;
  readonly port: number;
  /** Free as well, for what the server's parts say to each other. */
  readonly innerPorts: readonly number[];
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly spawn: (command: string, args: readonly string[], env?: Readonly<Record<string, string>>) => void;
}

export interface ServerProgram {
  readonly version: string;
  /** Finds or builds it; rejects with what to do. */
  binary(): Promise<string>;
  /** Before the first start. */
  prepare?(context: ServerContext): Promise<void>;
  /** Each start. */
  run(context: ServerContext): Promise<void>;
  /** Answers 200 when the server can be used. */
  readonly healthPath: string;
}

/**
 * Master, volume server, filer and gateway in one process, as the compose file runs it. After a restart it takes writes only when
 * its master's 15 s are over, in which the volume servers may report; a PUT meanwhile waits.
 */
const seaweedfs: ServerProgram = {
  version: "4.53",
  binary: () => serverBinary("weed"),
  healthPath: "/healthz",
  run: async ({ binary, directory, host, port, innerPorts, accessKeyId, secretAccessKey, spawn }) => {
    const inner = ["master", "volume", "filer", "admin"].flatMap((part, index) => [
      `-${part}.port=${innerPorts[2 * index]}`,
      `-${part}.port.grpc=${innerPorts[2 * index + 1]}`,
    ]);
    const s3 = [
      `-s3.port=${port}`,
      `-s3.port.grpc=${innerPorts[8]}`,
      "-s3.port.iceberg=0",
      "-s3.port.lance=0",
    ];
    const without = ["-webdav=false", "-admin.ui=false", "-admin.port.legacy=0", "-master.telemetry=false"];
    const here = [`-ip=${host}`, `-ip.bind=${host}`, `-dir=${join(directory, "data")}`];
    // By default a request makes the bucket that it names.
    spawn(binary, ["mini", ...here, ...inner, ...s3, ...without, "-s3.autoCreateBucket=false"], {
      AWS_ACCESS_KEY_ID: accessKeyId,
      AWS_SECRET_ACCESS_KEY: secretAccessKey,
    });
  },
};

const versitygw: ServerProgram = {
  version: serverSources.versitygw.version,
  binary: () => serverBinary("versitygw"),
  healthPath: "/health",
  run: async ({ binary, directory, host, port, accessKeyId, secretAccessKey, spawn }) => {
    const listen = ["--port", `${host}:${port}`, "--health", "/health", "--quiet"];
    spawn(binary, [...listen, "posix", join(directory, "data")], {
      ROOT_ACCESS_KEY: accessKeyId,
      ROOT_SECRET_KEY: secretAccessKey,
    });
  },
};

const minio: ServerProgram = {
  version: serverSources.minio.version.replace(/^v0\.0\.0-(\d{4})(\d\d)(\d\d).*$/, "of $1-$2-$3"),
  binary: () => serverBinary("minio"),
  healthPath: "/minio/health/ready",
  run: async ({ binary, directory, port, accessKeyId, secretAccessKey, spawn }) => {
    const listen = ["--address", `127.0.0.1:${port}`, "--console-address", "127.0.0.1:0"];
    spawn(binary, ["server", "--quiet", ...listen, join(directory, "data")], {
      MINIO_ROOT_USER: accessKeyId,
      MINIO_ROOT_PASSWORD: secretAccessKey,
      MINIO_BROWSER: "off",
      MINIO_UPDATE: "off",
    });
  },
};

/** Debian 12's. */
const ceph: ServerProgram = {
  version: "16.2 (Debian 12)",
  healthPath: "/",
  binary: async () => {
    const programs = ["/usr/bin/ceph-mon", "/usr/bin/ceph-osd", "/usr/bin/radosgw"];
    await Promise.all(programs.map((path) => access(path))).catch(() => {
      throw new Error(
        "Ceph is not installed. Run: apt-get install --no-install-recommends ceph-mon ceph-osd radosgw",
      );
    });
    return "/usr/bin/radosgw";
  },
  prepare: async (context) => {
    const fsid = randomUUID();
    const monitor = join(context.directory, "mon");
    await mkdir(join(context.directory, "osd"), { recursive: true });
    await writeFile(join(context.directory, "ceph.conf"), cephSettings(context, fsid));
    const map = join(context.directory, "monmap");
    await run("monmaptool", ["--create", "--addv", "a", monitorAddress(context), "--fsid", fsid, map]);
    await run("ceph-mon", [
      ...cephFlags(context),
      "--mkfs",
      "-i",
      "a",
      "--mon-data",
      monitor,
      "--monmap",
      map,
    ]);
  },
  run: async (context) => {
    const flags = cephFlags(context);
    const known = join(context.directory, "osd-uuid");
    context.spawn("ceph-mon", [...flags, "-f", "-i", "a"]);
    const present = await readFile(known, "utf8").catch(() => null);
    if (present === null) {
      const uuid = randomUUID();
      await run("ceph", [...flags, "osd", "new", uuid, "0"], { timeout: 60_000 });
      await run("ceph-osd", [...flags, "-i", "0", "--mkfs", "--osd-uuid", uuid], { timeout: 60_000 });
      await writeFile(known, uuid);
    }
    context.spawn("ceph-osd", [...flags, "-f", "-i", "0"]);
    if (present === null) {
      const keys = ["--access-key", context.accessKeyId, "--secret-key", context.secretAccessKey];
      const user = ["user", "create", "--uid", "varve", "--display-name", "varve", ...keys];
      await run("radosgw-admin", [...flags, ...user], { timeout: 120_000 });
    }
    context.spawn("radosgw", [...flags, "-f", "-n", "client.rgw"]);
  },
};

function monitorAddress(context: ServerContext): string {
  return `[v2:127.0.0.1:${context.innerPorts[0]}]`;
}

function cephFlags(context: ServerContext): readonly string[] {
  return ["--conf", join(context.directory, "ceph.conf")];
}

function cephSettings(context: ServerContext, fsid: string): string {
  const { directory, port } = context;
  // Without keys there is nothing to encrypt with, and v2 connections are secure by default: crc.
  return `[global]
fsid = ${fsid}
mon_host = ${monitorAddress(context)}
ms_mon_cluster_mode = crc
ms_mon_service_mode = crc
ms_mon_client_mode = crc
mon_initial_members = a
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
run_dir = ${directory}
admin_socket = ${directory}/$name.asok
pid_file = ${directory}/$name.pid
log_file = ${directory}/$name.log
crash_dir = ${directory}/crash
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pgp_num = 8
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_warn_on_pool_no_redundancy = false
[mon.a]
mon_data = ${directory}/mon
[osd.0]
osd_data = ${directory}/osd
osd_objectstore = bluestore
bluestore_block_create = true
bluestore_block_size = 10737418240
[client.rgw]
rgw_frontends = beast endpoint=127.0.0.1:${port}
rgw_data = ${directory}/rgw
`;
}

export const serverPrograms: Readonly<Record<S3ServerName, ServerProgram>> = {
  seaweedfs,
  versitygw,
  minio,
  ceph,
};
