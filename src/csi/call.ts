/**
 * What happens around every handler: request id and log context, one line when the call begins and one when it ends,
 * checks that need no knowledge of the method, metrics, and the conversion of whatever was thrown into a status.
 */
import { type handleUnaryCall, Metadata, type sendUnaryData } from '@grpc/grpc-js';
import type protobuf from 'protobufjs';
import { DriverError } from '../errors.ts';
import { log, requestId, withContext } from '../system/context.ts';
import { checkIncoming } from './incoming.ts';
import { methodTypes, type ServiceName } from './proto.ts';
import { redact, type WireObject } from './redact.ts';
import { errorForLog, scrub, secretsOf } from './scrub.ts';
import { toStatus, type WireStatus } from './status.ts';

/** Metrics: told when a call begins; calls back with "OK" or the code's name when it has ended. */
export interface RpcObserver {
  started(method: string): (code: string) => void;
}

/** One service's handlers by method name. Each takes its own request type: see the interfaces beside the services. */
export type Handlers = Readonly<Record<string, (request: never) => Promise<object>>>;

export interface CallOptions {
  /** A call that takes longer is warned about, in milliseconds. */
  readonly slowCallMs: number;
  readonly observer: RpcObserver | undefined;
}

/** Polled every few seconds by sidecars and kubelet: logged at debug as long as they succeed. */
const QUIET = new Set([
  'GetPluginInfo',
  'GetPluginCapabilities',
  'Probe',
  'ControllerGetCapabilities',
  'GroupControllerGetCapabilities',
  'NodeGetCapabilities',
  'NodeGetVolumeStats',
  'GetCapacity',
  'ListVolumes',
]);

/** See FailedCall.mayLeaveState. */
const MAY_LEAVE_STATE = new Set([
  'CreateVolume',
  'CreateSnapshot',
  'CreateVolumeGroupSnapshot',
  'ControllerPublishVolume',
  // After a final code the resizer lets the user ask for less than the volume has by now.
  'ControllerExpandVolume',
  'NodeStageVolume',
  'NodePublishVolume',
]);

const ID_FIELDS = [
  'volume_id',
  'name',
  'node_id',
  'snapshot_id',
  'source_volume_id',
  'group_snapshot_id',
  'staging_target_path',
  'target_path',
  'volume_path',
] as const;

/** The calls that are being worked on, also those whose client has gone. */
export class ActiveCalls {
  readonly #running = new Set<Promise<void>>();

  track(work: Promise<void>): void {
    this.#running.add(work);
    void work.finally(() => this.#running.delete(work));
  }

  get count(): number {
    return this.#running.size;
  }

  /** Resolves when all that run now, and all that they let in meanwhile, have ended. */
  async idle(): Promise<void> {
    while (this.#running.size > 0) await Promise.allSettled(this.#running);
  }
}

interface Method {
  readonly name: string;
  readonly request: protobuf.Type;
  readonly response: protobuf.Type;
  readonly handler: (request: never) => Promise<object>;
}

export function wrapUnary(
  service: ServiceName,
  name: string,
  handler: (request: never) => Promise<object>,
  active: ActiveCalls,
  options: CallOptions,
): handleUnaryCall<WireObject, object> {
  const method: Method = { name, handler, ...methodTypes(service, name) };
  return (call, callback) => {
    const shown = redact(method.request, call.request);
    // "name" is the logger's own field.
    const ids = Object.fromEntries(
      ID_FIELDS.filter((id) => id in shown).map((id) => [id === 'name' ? 'csi_name' : id, shown[id]]),
    );
    active.track(
      withContext({ method: name, ...ids }, async () => {
        log()[QUIET.has(name) ? 'debug' : 'info']({ request: shown }, 'call begins');
        const logger = log();
        let working = true;
        // Emitted outside of this call's context, and also when a call that was answered is torn down.
        call.on('cancelled', () => {
          if (working) logger.info('the client gave up waiting; the work goes on');
        });
        const outcome = await serve(method, call.request, options);
        working = false;
        if (!call.cancelled) answer(outcome, callback);
      }),
    );
  };
}

type Outcome = { readonly ok: true; readonly response: object } | { readonly ok: false; readonly status: WireStatus };

/** Never throws. */
async function serve(method: Method, raw: WireObject, options: CallOptions): Promise<Outcome> {
  const startedMs = performance.now();
  const ended = options.observer?.started(method.name);
  const warning = setTimeout(
    () => log().warn({ slowCallMs: options.slowCallMs }, 'slow call: still running'),
    options.slowCallMs,
  );
  warning.unref();
  const secrets = secretsOf(method.request, raw);
  let outcome: Outcome;
  let error: unknown;
  try {
    const request = checkIncoming(method.request, raw);
    outcome = { ok: true, response: await method.handler(request as never) };
  } catch (caught) {
    error = caught;
    const status = toStatus(caught, {
      method: method.name,
      requestId: requestId() ?? '',
      mayLeaveState: MAY_LEAVE_STATE.has(method.name),
      scrub: (text) => scrub(text, secrets),
    });
    outcome = { ok: false, status };
  } finally {
    clearTimeout(warning);
  }
  const durationMs = Math.round(performance.now() - startedMs);
  ended?.(outcome.ok ? 'OK' : outcome.status.codeName);
  if (outcome.ok) {
    const level = durationMs > options.slowCallMs ? 'warn' : QUIET.has(method.name) ? 'debug' : 'info';
    log()[level]({ code: 'OK', durationMs, ...responseIds(method.response, outcome.response) }, 'call ended');
  } else {
    const fields = { code: outcome.status.codeName, durationMs, message: outcome.status.message };
    // The stack of an expected error says nothing; its cause does.
    const cause = error instanceof DriverError ? error.cause : error;
    const err = cause === undefined ? {} : { err: errorForLog(cause, secrets) };
    log()[outcome.status.expected ? 'warn' : 'error']({ ...fields, ...err }, 'call failed');
  }
  return outcome;
}

function answer(outcome: Outcome, callback: sendUnaryData<object>): void {
  if (outcome.ok) {
    callback(null, outcome.response);
    return;
  }
  const { code, message } = outcome.status;
  callback({ code, details: message, metadata: new Metadata() });
}

/** The id that a create gave. */
function responseIds(type: protobuf.Type, response: object): WireObject {
  const volume = redact(type, response as WireObject)['volume'] as WireObject | undefined;
  return volume?.['volume_id'] === undefined ? {} : { volume_id: volume['volume_id'] };
}
