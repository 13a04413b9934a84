import { generateKeyPairSync, randomUUID } from 'node:crypto'
import { SignJWT } from 'jose'
import type { RegisteredClient } from '../../../src/demo/provider/identity-provider-options.ts'
import type { ConfigData } from '../config/cloakroom-config.ts'

/** One way for a client to authenticate: how Cloakroom is told, how the provider is told, and how a test does it itself. */
export type ClientAuthentication = {
  readonly method: RegisteredClient['authMethod']
  readonly config: ConfigData
  readonly registration: Pick<RegisteredClient, 'authMethod' | 'clientSecret' | 'jwks'>
  /** Adds the client's credentials to a token request. */
  sign(
    form: Record<string, string>,
    issuer: string,
  ): Promise<{ form: Record<string, string>; headers: Record<string, string> }>
}

export const CLIENT_ID = 'shop'
// What form-urlencoding changes must survive Basic authentication (RFC 6749 §2.3.1).
const SECRET = 'client secret: +%/=&_flow-test'

/** The four methods of the configuration. */
export function clientAuthentications(): ClientAuthentication[] {
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
  const jwk = { ...publicKey.export({ format: 'jwk' }), kid: 'key-1', alg: 'RS256', use: 'sig' }
  return [
    {
      method: 'client_secret_basic',
      config: { method: 'client_secret_basic', secret: SECRET },
      registration: { authMethod: 'client_secret_basic', clientSecret: SECRET },
      sign: async (form) => ({
        form,
        headers: {
          authorization: `Basic ${Buffer.from(`${CLIENT_ID}:${encodeURIComponent(SECRET)}`).toString('base64')}`,
        },
      }),
    },
    {
      method: 'client_secret_post',
      config: { method: 'client_secret_post', secret: SECRET },
      registration: { authMethod: 'client_secret_post', clientSecret: SECRET },
      sign: async (form) => ({
        form: { ...form, client_id: CLIENT_ID, client_secret: SECRET },
        headers: {},
      }),
    },
    {
      method: 'private_key_jwt',
      config: { method: 'private_key_jwt', key: pem, keyId: 'key-1', algorithm: 'RS256' },
      registration: { authMethod: 'private_key_jwt', jwks: { keys: [jwk] } },
      sign: async (form, issuer) => ({
        form: {
          ...form,
          client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
          client_assertion: await new SignJWT({ jti: randomUUID() })
            .setProtectedHeader({ alg: 'RS256', kid: 'key-1' })
            .setIssuer(CLIENT_ID)
            .setSubject(CLIENT_ID)
            .setAudience(issuer)
            .setIssuedAt()
            .setExpirationTime('1m')
            .sign(privateKey),
        },
        headers: {},
      }),
    },
    {
      method: 'none',
      config: { method: 'none' },
      registration: { authMethod: 'none' },
      sign: async (form) => ({ form: { ...form, client_id: CLIENT_ID }, headers: {} }),
    },
  ]
}
