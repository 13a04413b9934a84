import { readFileSync } from 'node:fs'
import type { AssertionAudience, ClientAuthConfig } from '../../config/config.ts'
import { BffError, describeError } from '../../errors.ts'
import type { LogFields } from '../../log.ts'
import { privateKeyFromPem, signedJwt, timesOf } from '../token-endpoint/jwt.ts'
import { type CertificatesDeps, createCertificates } from './certificates.ts'

/** Proves in one request that we are the client; openid-client takes it as it is. */
export type AuthenticateClient = (
  server: { readonly issuer: string; readonly token_endpoint?: string },
  client: { readonly client_id: string },
  body: URLSearchParams,
  headers: Headers,
) => void | Promise<void>

/** How the client proves who it is (OpenID Connect Core §9), with what the files and variables hold at each use. */
export type ClientAuthenticator = {
  readonly method: ClientAuthConfig['method']
  /** Rejects with provider_rejected when the proof cannot be made. */
  readonly authenticate: AuthenticateClient
  /** The secret or key as it is now, to be compared and never logged; undefined for a client without one. */
  current(): string | undefined
  /** Told of a proof, by what `current` was, that the provider has refused: another may be tried after that. */
  refused?(credential: string): void
  /** For the log: how the client authenticates, by which key. */
  facts(): Pick<LogFields, 'clientAuth' | 'keyId' | 'notAfter'>
}

type AssertionAuth = Exclude<
  ClientAuthConfig,
  { method: 'client_secret_basic' | 'client_secret_post' | 'tls_client_auth' | 'none' }
>

/** Makes the authentication by a JWT (RFC 7523 §2.2): signed by us, or by the platform that runs us. */
export function createClientAssertion(auth: AssertionAuth, deps: CertificatesDeps): ClientAuthenticator {
  const { method } = auth
  switch (auth.method) {
    case 'client_secret_jwt':
      return {
        method,
        current: () => auth.secret.reveal(),
        authenticate: signedBy(auth.audience, async () => ({
          key: Buffer.from(auth.secret.reveal()),
          header: { alg: 'HS256' },
        })),
        facts: () => ({ clientAuth: method }),
      }
    case 'private_key_jwt':
      return {
        method,
        current: () => auth.key.reveal(),
        authenticate: signedBy(auth.audience, async () => ({
          key: await privateKeyFromPem(auth.key.reveal(), auth.algorithm),
          header: { alg: auth.algorithm, ...(auth.keyId === undefined ? {} : { kid: auth.keyId }) },
        })),
        facts: () => ({ clientAuth: method, ...(auth.keyId === undefined ? {} : { keyId: auth.keyId }) }),
      }
    case 'certificate': {
      const certificates = createCertificates(auth.readPair, deps)
      return {
        method,
        current: () => certificates.current().thumbprint,
        authenticate: signedBy(auth.audience, async () => {
          const { key, thumbprint, sha1Thumbprint } = certificates.current()
          return {
            key: await privateKeyFromPem(key, auth.algorithm),
            // RS256 is for servers that know a certificate by its SHA-1 alone, such as AD FS.
            header: {
              ...{ alg: auth.algorithm, typ: 'JWT', 'x5t#S256': thumbprint },
              ...(auth.algorithm === 'RS256' ? { x5t: sha1Thumbprint } : {}),
            },
          }
        }),
        refused: certificates.refused,
        facts: () => ({ clientAuth: method, ...certificates.facts() }),
      }
    }
    case 'workload_identity':
      return {
        method,
        current: () => assertionIn(auth.assertionFile, deps.now),
        authenticate: (_server, client, body) =>
          putAssertion(body, client, assertionIn(auth.assertionFile, deps.now)),
        facts: () => ({ clientAuth: method }),
      }
  }
}

type Signer = () => Promise<{
  readonly key: CryptoKey | Uint8Array
  readonly header: Readonly<{ alg: string } & Record<string, string>>
}>

/**
 * A new assertion for each request (RFC 7523 §3), good for a minute. Its `aud` is a string: FAPI 2.0 §5.3.3.1 forbids a
 * list, and servers have refused one.
 */
function signedBy(audience: AssertionAudience, signer: Signer): AuthenticateClient {
  return async (server, client, body) => {
    const { client_id: clientId } = client
    const { key, header } = await signer()
    const aud = audience === 'issuer' ? server.issuer : (server.token_endpoint ?? server.issuer)
    putAssertion(body, client, await signedJwt(header, { iss: clientId, sub: clientId, aud }, key))
  }
}

function putAssertion(body: URLSearchParams, client: { client_id: string }, assertion: string): void {
  body.set('client_id', client.client_id)
  body.set('client_assertion_type', 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer')
  body.set('client_assertion', assertion)
}

/**
 * The assertion that the platform has written for us, read anew each time: it is replaced every hour or so, under a
 * symbolic link that changes, and one that is kept locks the client out. Throws provider_rejected with the file's name:
 * nothing is sent, and no refresh token is used up.
 */
function assertionIn(file: string, now: () => number): string {
  let assertion: string
  try {
    assertion = readFileSync(file, 'utf8').trim()
  } catch (error) {
    throw unusable(`cannot be read (${describeError(error).code ?? 'unreadable'})`, file)
  }
  if (assertion === '') throw unusable('is empty', file)
  const { exp } = timesOf(assertion)
  const secondsOver = exp === undefined ? 0 : Math.floor(now() / 1000 - exp)
  if (secondsOver > 0) throw unusable(`holds one that expired ${secondsOver} s ago`, file)
  return assertion
}

function unusable(what: string, file: string): BffError {
  return new BffError('provider_rejected', 'there is no client assertion to authenticate with', {
    cause: new Error(`the file of the client assertion ${what}: ${file}`),
    details: { reason: 'invalid_client' },
    logged: { oauthError: 'invalid_client' },
  })
}

/** What an operator does about a client that the provider refuses. */
export const CLIENT_AUTH_CURES: Readonly<Record<ClientAuthConfig['method'], string>> = {
  client_secret_basic: 'put the secret that the provider shows for this client into provider.clientAuth',
  client_secret_post: 'put the secret that the provider shows for this client into provider.clientAuth',
  client_secret_jwt: 'put the secret that the provider shows for this client into provider.clientAuth',
  private_key_jwt: 'register the public key of provider.clientAuth, under this key id, for the client',
  certificate: 'register this certificate (keyId is its SHA-256 thumbprint, base64url) for the client',
  workload_identity: 'register the issuer, subject and audience of the assertion as a federated credential',
  tls_client_auth: 'register the subject, or the certificate itself, of provider.tls.cert for the client',
  none: 'register the client as a public one, or give it a secret in provider.clientAuth',
}
