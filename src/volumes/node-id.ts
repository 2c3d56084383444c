/**
 * node_id: "<node name>/<initiator IQN>", at most 192 bytes (CSI allows 256; Kubernetes stores it in CSINode, whose
 * limit is 192). A Kubernetes node name is a DNS subdomain and holds no slash, nor does an IQN.
 */
import { DriverError } from '../errors.ts';

export const MAX_NODE_ID_BYTES = 192;

export interface NodeIdentity {
  readonly nodeName: string;
  /**
   * From parseNodeId in lower case: LIO turns the InitiatorName of a login to it before it looks for the ACL
   * (iscsi_initiatorname_tolower), and names that differ only in case are one (RFC 3722).
   */
  readonly initiatorIqn: string;
}

const NODE_NAME = /^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$/;
/** RFC 3720 section 3.2.6.3; iqn.yyyy-mm.naming-authority[:unique], eui. and naa. forms. */
const INITIATOR =
  /^(iqn\.[0-9]{4}-[0-9]{2}\.[A-Za-z0-9.-]+(:[A-Za-z0-9.:_-]+)?|eui\.[0-9A-Fa-f]{16}|naa\.[0-9A-Fa-f]{16,32})$/;

/** @throws DriverError INVALID_ARGUMENT when a part is malformed or the whole is too long. */
export function formatNodeId(identity: NodeIdentity): string {
  const nodeId = `${identity.nodeName}/${identity.initiatorIqn}`;
  if (parseNodeId(nodeId) === undefined) {
    throw new DriverError('INVALID_ARGUMENT', {
      problem: `node name "${identity.nodeName}" and initiator name "${identity.initiatorIqn}" do not make a node id`,
      found: `${Buffer.byteLength(nodeId)} bytes with the slash between them`,
      action: `use a DNS-like node name and an iqn., eui. or naa. initiator name (in lower case up to its colon), at most ${MAX_NODE_ID_BYTES} bytes in all`,
    });
  }
  return nodeId;
}

/** undefined when it is not one of ours (publish answers NOT_FOUND then, unpublish OK). */
export function parseNodeId(nodeId: string): NodeIdentity | undefined {
  if (Buffer.byteLength(nodeId) > MAX_NODE_ID_BYTES) return undefined;
  const slash = nodeId.indexOf('/');
  if (slash < 0) return undefined;
  const [nodeName, name] = [nodeId.slice(0, slash), nodeId.slice(slash + 1)];
  if (!NODE_NAME.test(nodeName) || !INITIATOR.test(name)) return undefined;
  return { nodeName, initiatorIqn: name.toLowerCase() };
}
