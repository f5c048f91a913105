/*
 * Option haggling: from the client's first flags to an export, or to the end of the connection. Called by
 * nbd-connection.ts with what stands in the input; what it agrees on becomes the session of nbd-transmission.ts. TLS has its
 * place in startTls(): a later policy answers there, and refuses everything else until then.
 *
 *   flags ─► option ─(header, data)─► option …  ─GO, EXPORT_NAME─► agreed      any state ─ABORT, bad magic, limit─► closed
 *              └─ too long: skipping ─► option     └─ opening an export: waiting ─► option, agreed
 */
import { toVarveError, type VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import {
  type NbdOptionReplyNumber,
  type NbdReplyStyle,
  nbdInfo,
  nbdOption,
  nbdOptionReply,
} from "#shared/formats/nbd-numbers.ts";
import {
  clientFlagBytes,
  decodeClientFlags,
  decodeInfoRequest,
  decodeMetaContextQuery,
  decodeName,
  decodeOptionHeader,
  encodeBlockSizeInfo,
  encodeExportInfo,
  encodeExportNameReply,
  encodeListedExport,
  encodeMetaContext,
  encodeOptionReply,
  encodeTextInfo,
  type InfoRequest,
  type OptionHeader,
  optionHeaderBytes,
} from "#shared/formats/nbd-option.ts";
import { transmissionFlags } from "#shared/formats/nbd-transmission.ts";
import type { BlockExport, ExportDirectory } from "#shared/ports/block-export.ts";
import type { Session } from "./nbd-commands.ts";
import type { NbdInput } from "./nbd-input.ts";
import { type MetaContextChoice, matchContexts } from "./nbd-meta-contexts.ts";
import { exportRefusal } from "./nbd-refusals.ts";

/** more: needs input. waiting: an export is being opened. agreed: `session` is set. closed: hang up. */
export type NegotiationProgress = "more" | "waiting" | "agreed" | "closed";

export interface NegotiationHost {
  readonly directory: ExportDirectory;
  send(bytes: Uint8Array): void;
  /** What handleInput() was waiting for has come. */
  inputMayContinue(): void;
}

export class NbdNegotiation {
  session: Session | null = null;
  private readonly host: NegotiationHost;
  private state: "flags" | "option" | "skipping" | "waiting" | "closed" = "flags";
  private noZeroes = false;
  private option: OptionHeader | null = null;
  private optionsSeen = 0;
  private skipBytes = 0;
  private style: NbdReplyStyle = "simple";
  private chosen: { readonly exportName: string; readonly contexts: readonly MetaContextChoice[] } | null =
    null;
  /** The export that was opened last: INFO, SET_META_CONTEXT and GO usually name the same one. */
  private candidate: { readonly name: string; readonly volume: BlockExport } | null = null;

  constructor(host: NegotiationHost) {
    this.host = host;
  }

  /** An export is being opened; nothing is handled meanwhile. */
  get waiting(): boolean {
    return this.state === "waiting";
  }

  handleInput(input: NbdInput): NegotiationProgress {
    for (;;) {
      if (this.session !== null) return "agreed";
      if (this.state === "closed" || this.state === "waiting") return this.state;
      const went = this.state === "flags" ? this.takeFlags(input) : this.takeOption(input);
      if (!went) return "more";
    }
  }

  /** The connection ends: an export that was opened and not agreed on is closed. */
  abort(): void {
    this.state = "closed";
    if (this.session === null) this.candidate?.volume.close();
    this.candidate = null;
  }

  private takeFlags(input: NbdInput): boolean {
    if (input.waiting < clientFlagBytes) return false;
    const flags = decodeClientFlags(input.view, input.parsed);
    input.parsed += clientFlagBytes;
    this.noZeroes = flags?.noZeroes ?? false;
    this.state = flags === null ? "closed" : "option";
    return true;
  }

  /** Takes a header, a whole option or a part of one that is skipped; false where that needs more input. */
  private takeOption(input: NbdInput): boolean {
    if (this.option === null) {
      if (input.waiting < optionHeaderBytes) return false;
      this.option = decodeOptionHeader(input.view, input.parsed);
      input.parsed += optionHeaderBytes;
      this.optionsSeen += 1;
      const bad = this.option === null || this.optionsSeen > limits.nbdOptionsMax;
      const length = this.option?.length ?? 0;
      if (bad || length > limits.nbdSkippedOptionBytesMax) this.state = "closed";
      else if (length > limits.nbdOptionBytesMax) {
        this.state = "skipping";
        this.skipBytes = length;
      }
      return true;
    }
    if (this.state === "skipping") return this.skipOption(input, this.option);
    const { option, length } = this.option;
    if (input.waiting < length) return false;
    const data = input.slab.bytes.subarray(input.parsed, input.parsed + length);
    input.parsed += length;
    this.option = null;
    this.handle(option, data);
    return true;
  }

  private skipOption(input: NbdInput, { option }: OptionHeader): boolean {
    const bytes = Math.min(this.skipBytes, input.waiting);
    input.parsed += bytes;
    this.skipBytes -= bytes;
    if (this.skipBytes > 0) return false;
    this.option = null;
    this.state = option === nbdOption.exportName ? "closed" : "option";
    this.refuse(option, nbdOptionReply.tooBig, `an option may have ${limits.nbdOptionBytesMax} bytes`);
    return true;
  }

  private handle(option: number, data: Uint8Array): void {
    switch (option) {
      case nbdOption.exportName:
        this.exportName(data);
        break;
      case nbdOption.abort:
        this.reply(option, nbdOptionReply.ack);
        this.state = "closed";
        break;
      case nbdOption.list:
        this.list(data);
        break;
      case nbdOption.startTls:
        this.startTls();
        break;
      case nbdOption.info:
      case nbdOption.go:
        this.infoOrGo(option, data);
        break;
      case nbdOption.structuredReply:
      case nbdOption.extendedHeaders:
        this.chooseStyle(option, data);
        break;
      case nbdOption.listMetaContext:
      case nbdOption.setMetaContext:
        this.metaContext(option, data);
        break;
      default:
        this.refuse(option, nbdOptionReply.unsupported, "unknown option");
    }
  }

  /** Without TLS there is nothing to start, and the session goes on in the clear. */
  private startTls(): void {
    this.refuse(nbdOption.startTls, nbdOptionReply.unsupported, "this server has no TLS");
  }

  /** The old way in: no reply but the export itself, any error closes. */
  private exportName(data: Uint8Array): void {
    const name = decodeName(data);
    if (name === null || this.style === "extended") {
      this.state = "closed";
      return;
    }
    this.withExport(name, (volume) => {
      if (volume === null) {
        this.state = "closed";
        return;
      }
      const flags = transmissionFlags(volume.readOnly, this.style);
      this.host.send(encodeExportNameReply(volume.sizeBytes, flags, this.noZeroes));
      this.agree(name, volume);
    });
  }

  private list(data: Uint8Array): void {
    if (data.length > 0) {
      this.refuse(nbdOption.list, nbdOptionReply.invalid, "LIST takes no data");
      return;
    }
    for (const { name, description } of this.host.directory.list()) {
      this.reply(nbdOption.list, nbdOptionReply.server, encodeListedExport(name, description));
    }
    this.reply(nbdOption.list, nbdOptionReply.ack);
  }

  private infoOrGo(option: number, data: Uint8Array): void {
    const request = decodeInfoRequest(data);
    if (request === null) {
      this.refuse(option, nbdOptionReply.invalid, "malformed request for an export");
      return;
    }
    this.withExport(request.exportName, (volume, error) => {
      if (volume === null) {
        this.refuseExport(option, request.exportName, error);
        return;
      }
      this.sendInfo(option, request, volume);
      this.reply(option, nbdOptionReply.ack);
      if (option === nbdOption.go) this.agree(request.exportName, volume);
    });
  }

  private sendInfo(option: number, request: InfoRequest, volume: BlockExport): void {
    const send = (data: Uint8Array): void => this.reply(option, nbdOptionReply.info, data);
    send(encodeExportInfo(volume.sizeBytes, transmissionFlags(volume.readOnly, this.style)));
    const asked = new Set(request.infoTypes);
    if (asked.has(nbdInfo.name)) send(encodeTextInfo(nbdInfo.name, volume.name));
    if (asked.has(nbdInfo.description)) send(encodeTextInfo(nbdInfo.description, volume.description));
    if (asked.has(nbdInfo.blockSize)) send(encodeBlockSizeInfo(volume.preferredBlockBytes));
  }

  private chooseStyle(option: number, data: Uint8Array): void {
    if (data.length > 0) {
      this.refuse(option, nbdOptionReply.invalid, "this option takes no data");
    } else if (option === nbdOption.extendedHeaders) {
      this.style = "extended";
      this.reply(option, nbdOptionReply.ack);
    } else if (this.style === "extended") {
      this.refuse(option, nbdOptionReply.extendedHeadersRequired, "extended headers were agreed");
    } else {
      this.style = "structured";
      this.reply(option, nbdOptionReply.ack);
    }
  }

  private metaContext(option: number, data: Uint8Array): void {
    const setting = option === nbdOption.setMetaContext;
    if (setting) this.chosen = null;
    const query = decodeMetaContextQuery(data);
    if (query === null || this.style === "simple") {
      const why = query === null ? "malformed query" : "metadata contexts need structured replies";
      this.refuse(option, nbdOptionReply.invalid, why);
      return;
    }
    this.withExport(query.exportName, (volume, error) => {
      if (volume === null) {
        this.refuseExport(option, query.exportName, error);
        return;
      }
      const answer = (contexts: readonly MetaContextChoice[]): void => {
        for (const { id, name } of contexts) {
          this.reply(option, nbdOptionReply.metaContext, encodeMetaContext(setting ? id : 0, name));
        }
        if (setting) this.chosen = { exportName: query.exportName, contexts };
        this.reply(option, nbdOptionReply.ack);
      };
      this.later(matchContexts(volume, query.queries, setting), answer);
    });
  }

  /** Handles nothing more until the contexts are known: those of a point need its history. */
  private later(
    found: Promise<readonly MetaContextChoice[]>,
    then: (contexts: readonly MetaContextChoice[]) => void,
  ): void {
    this.state = "waiting";
    const arrived = (contexts: readonly MetaContextChoice[]): void => {
      if (this.state === "closed") return;
      this.state = "option";
      then(contexts);
      this.host.inputMayContinue();
    };
    found.then(arrived, () => arrived([]));
  }

  /** Calls back with the export, with null for an unknown name, or with null and why it can't be served now. */
  private withExport(
    name: string,
    then: (volume: BlockExport | null, error: VarveError | null) => void,
  ): void {
    if (this.candidate?.name === name) {
      then(this.candidate.volume, null);
      return;
    }
    this.candidate?.volume.close();
    this.candidate = null;
    this.state = "waiting";
    const arrived = (volume: BlockExport | null, error: VarveError | null): void => {
      if (this.state === "closed") {
        volume?.close();
        return;
      }
      this.state = "option";
      if (volume !== null) this.candidate = { name, volume };
      then(volume, error);
      this.host.inputMayContinue();
    };
    this.host.directory.open(name).then(
      (volume) => arrived(volume, null),
      (cause: unknown) => arrived(null, toVarveError(cause, `open export ${name}`)),
    );
  }

  private agree(exportName: string, volume: BlockExport): void {
    const contexts = this.chosen?.exportName === exportName ? this.chosen.contexts : [];
    this.session = { volume, style: this.style, contexts };
  }

  private refuseExport(option: number, name: string, error: VarveError | null): void {
    const { type, text } = exportRefusal(name, error);
    this.refuse(option, type, text);
  }

  private refuse(option: number, type: NbdOptionReplyNumber, message: string): void {
    if (this.state === "closed") return;
    this.reply(option, type, new TextEncoder().encode(message));
  }

  private reply(option: number, type: NbdOptionReplyNumber, data?: Uint8Array): void {
    this.host.send(encodeOptionReply(option, type, data));
  }
}
