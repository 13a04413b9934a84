import { createHash, createHmac } from 'node:crypto'
import type { ClientTokenRecords } from '../../store/port.ts'
import {
  type AccessToken,
  createDefinitions,
  type Grants,
  packToken,
  type Sealing,
  unpackToken,
} from '../record/sealing.ts'

/** The cache of the client's own tokens that all replicas share; one for each resource. Rejects with `store_unavailable`. */
export type SharedClientTokens = {
  read(resource: string): Promise<AccessToken | undefined>
  /** Keeps it until it expires. */
  write(resource: string, token: AccessToken): Promise<void>
  /** Takes the lock of the replica that gets the next one; false if another holds it. */
  lock(resource: string, owner: string, ttlMs: number): Promise<boolean>
  unlock(resource: string, owner: string): Promise<void>
}

export type SharedClientTokensDeps = {
  readonly records: ClientTokenRecords
  readonly sealing: Sealing
  /** Its secret or private key, as text, proves the client to the authorization server; it is read at each use. */
  readonly config: Grants
  readonly now: () => number
}

/**
 * Keeps the client's tokens sealed under an id derived from the client's credential, as a session's are under the id in
 * its cookie: neither the store nor the session keys alone open them. Undefined for a client without a lasting
 * credential: nothing else could seal its tokens for all replicas alone.
 */
export function createSharedClientTokens(deps: SharedClientTokensDeps): SharedClientTokens | undefined {
  const { records, sealing, config, now } = deps
  const { clientAuth, tls } = config.provider
  const key = clientAuth.method === 'tls_client_auth' ? tls?.key : undefined
  const secret = 'secret' in clientAuth ? clientAuth.secret : 'key' in clientAuth ? clientAuth.key : key
  if (!secret) return undefined
  const credential = () => secret.reveal()
  const definitionOf = createDefinitions(config)
  // By the whole definition: an older and a newer configuration in one cluster do not overwrite each other's tokens.
  const keyOf = (resource: string) => createHash('sha256').update(definitionOf(resource)).digest('base64url')
  const purpose = (name: string) => {
    const id = createHmac('sha256', credential()).update(name).digest('base64url')
    return { id, kind: 'client_token', name } as const
  }
  return {
    async read(resource) {
      const sealed = await records.read(keyOf(resource))
      const text = sealed === undefined ? undefined : sealing.open(purpose(resource), sealed)
      return text === undefined ? undefined : unpackToken(text)
    },
    async write(resource, token) {
      const sealed = sealing.seal(purpose(resource), packToken(token))
      await records.write(keyOf(resource), sealed, Math.max(1, Math.ceil(token.expiresAt - now())))
    },
    lock: (resource, owner, ttlMs) => records.lock(keyOf(resource), owner, ttlMs),
    unlock: (resource, owner) => records.unlock(keyOf(resource), owner),
  }
}
