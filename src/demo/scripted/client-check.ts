import { createPublicKey } from 'node:crypto'
import { jwtVerify } from 'jose'
import { field, type RecordedRequest } from './http-messages.ts'

/** The one client a scripted provider knows. */
export type KnownClient = {
  readonly clientId: string
  /** Absent together with `publicKeyPem`: a public client. */
  readonly clientSecret?: string
  /** SPKI PEM that verifies `private_key_jwt` assertions. */
  readonly publicKeyPem?: string
}

/** `ok`, or why the client is refused: unknown id, no credential, a wrong one, or several at once (RFC 6749 §2.3). */
export type ClientCheck = 'ok' | 'unknown-client' | 'missing' | 'wrong' | 'several'

/** Authenticates the client of a token request: post, Basic, private_key_jwt or none (OpenID Connect Core §9). */
export async function checkClient(
  request: RecordedRequest,
  client: KnownClient,
  audiences: string[],
): Promise<ClientCheck> {
  const basic = basicCredentials(request)
  const posted = field(request.form, 'client_secret')
  const assertion = field(request.form, 'client_assertion')
  if ([basic, posted, assertion].filter((given) => given !== undefined).length > 1) return 'several'
  const clientId = basic?.id ?? field(request.form, 'client_id') ?? assertionSubject(assertion)
  if (clientId !== client.clientId) return 'unknown-client'
  if (assertion !== undefined) return checkAssertion(assertion, client, audiences)
  const secret = basic?.secret ?? posted
  if (secret === undefined) return client.clientSecret || client.publicKeyPem ? 'missing' : 'ok'
  return secret === client.clientSecret ? 'ok' : 'wrong'
}

/** The credentials of `Authorization: Basic`, form-decoded as RFC 6749 §2.3.1 asks. */
export function basicCredentials(request: RecordedRequest): { id: string; secret: string } | undefined {
  const encoded = /^Basic (.+)$/i.exec(request.headers.authorization ?? '')?.[1]
  if (encoded === undefined) return undefined
  const text = Buffer.from(encoded, 'base64').toString('utf8')
  const colon = text.indexOf(':')
  const decode = (part: string) => decodeURIComponent(part.replaceAll('+', ' '))
  return { id: decode(text.slice(0, colon)), secret: decode(text.slice(colon + 1)) }
}

function assertionSubject(assertion: string | undefined): string | undefined {
  const payload = assertion?.split('.')[1]
  if (!payload) return undefined
  return JSON.parse(Buffer.from(payload, 'base64url').toString('utf8')).sub
}

async function checkAssertion(
  assertion: string,
  client: KnownClient,
  audiences: string[],
): Promise<ClientCheck> {
  if (!client.publicKeyPem) return 'wrong'
  try {
    await jwtVerify(assertion, createPublicKey(client.publicKeyPem), {
      issuer: client.clientId,
      subject: client.clientId,
      audience: audiences,
      requiredClaims: ['exp', 'jti'],
    })
    return 'ok'
  } catch {
    return 'wrong'
  }
}
