import { createPrivateKey, createPublicKey, type KeyObject, sign, verify } from 'node:crypto';
import { readFileSync } from 'node:fs';

import { DetinferError } from '../protocol/errors.js';
import { canonicalJson } from './canonical-json.js';
import { digestOf } from './digest.js';
import type { Receipt } from './receipt.js';

/** Reads a private key of Ed25519 in PEM. @throws DetinferError INVALID_FLAG */
export function readSigningKey(path: string): KeyObject {
  return readKey(path, '--signing-key', 'private', createPrivateKey);
}

/** Reads a public key of Ed25519 in PEM. @throws DetinferError INVALID_FLAG */
export function readPublicKey(path: string): KeyObject {
  return readKey(path, '--public-key', 'public', (pem) => {
    // Node would make the public key of a private one, which an auditor should not have.
    if (pem.includes('PRIVATE KEY')) throw new Error('it is a private key');
    return createPublicKey(pem);
  });
}

/** The receipt with a signature over all of its other fields. */
export function signReceipt(receipt: Receipt, privateKey: KeyObject): Receipt {
  const { signature: _, ...signed } = receipt;
  const value = sign(null, Buffer.from(canonicalJson(signed)), privateKey).toString('base64');
  return { ...signed, signature: { algorithm: 'ed25519', key: fingerprint(createPublicKey(privateKey)), value } };
}

/** What is wrong with the signature of a receipt under a public key; null: it is that key's. */
export function signatureProblem(receipt: Receipt, publicKey: KeyObject): string | null {
  const { signature, ...signed } = receipt;
  if (signature === undefined) return 'the receipt has no signature';
  const wanted = fingerprint(publicKey);
  if (signature.key !== wanted) return `the signature names the key ${signature.key}, and the one given is ${wanted}`;
  const isRight = verify(null, Buffer.from(canonicalJson(signed)), publicKey, Buffer.from(signature.value, 'base64'));
  return isRight ? null : 'the signature does not fit the receipt: something in it was changed';
}

/** Digest of a public key. */
function fingerprint(publicKey: KeyObject): string {
  return digestOf(publicKey.export({ type: 'spki', format: 'der' }));
}

function readKey(path: string, flag: string, kind: string, read: (pem: string) => KeyObject): KeyObject {
  const fail = (reason: string): DetinferError =>
    new DetinferError('INVALID_FLAG', `${flag} ${path}: ${reason}; it must be a ${kind} key of Ed25519 in PEM`);
  let key: KeyObject;
  try {
    key = read(readFileSync(path, 'utf8'));
  } catch (error) {
    throw fail((error as Error).message);
  }
  if (key.asymmetricKeyType !== 'ed25519') throw fail(`it is of ${key.asymmetricKeyType}`);
  return key;
}
