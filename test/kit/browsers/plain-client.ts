import { createHash, randomBytes } from 'node:crypto'

/** What a bare client needs to know of a provider. */
export type PlainProvider = {
  readonly clientId: string
  readonly clientSecret?: string | undefined
  readonly endpoints: { readonly authorization: string; readonly token: string }
}

/** An answer of the token endpoint: status, exact bytes and, when it is JSON, the members. */
export type TokenAnswer = {
  readonly status: number
  readonly text: string
  readonly headers: Headers
  // biome-ignore lint/suspicious/noExplicitAny: tests read members of many different answers
  readonly json: any
}

const REDIRECT_URI = 'http://127.0.0.1/bff/callback'

/** An OAuth client of a dozen lines over fetch, to try out the scripted providers without the code under test. */
export function createPlainClient(provider: PlainProvider) {
  const credentials = {
    client_id: provider.clientId,
    ...(provider.clientSecret === undefined ? {} : { client_secret: provider.clientSecret }),
  }

  /** The parameters of the authorization response, and the verifier that redeems its code. */
  async function authorize(params: Record<string, string | string[]>) {
    const verifier = randomBytes(32).toString('base64url')
    const url = new URL(provider.endpoints.authorization)
    const all: Record<string, string | string[]> = {
      ...{
        client_id: provider.clientId,
        response_type: 'code',
        redirect_uri: REDIRECT_URI,
        state: 'state-1',
      },
      ...{ nonce: 'nonce-1', code_challenge: createHash('sha256').update(verifier).digest('base64url') },
      ...{ code_challenge_method: 'S256', ...params },
    }
    for (const [name, value] of Object.entries(all))
      for (const one of [value].flat()) url.searchParams.append(name, one)
    const answer = await fetch(url, { redirect: 'manual' })
    const location = answer.headers.get('location')
    const response = location === null ? undefined : new URL(location)
    return { status: answer.status, text: await answer.text(), location, response, verifier }
  }

  async function token(
    form: Record<string, string>,
    headers: Record<string, string> = {},
  ): Promise<TokenAnswer> {
    const answer = await fetch(provider.endpoints.token, {
      method: 'POST',
      body: new URLSearchParams(form),
      headers,
    })
    const text = await answer.text()
    const isJson = answer.headers.get('content-type')?.includes('json') === true
    return {
      status: answer.status,
      text,
      headers: answer.headers,
      json: isJson ? JSON.parse(text) : undefined,
    }
  }

  return {
    authorize,
    token,
    /** Signs in and redeems the code; `redeem` holds what only the token request carries. */
    async signIn(params: Record<string, string | string[]>, redeem: Record<string, string> = {}) {
      const { response, verifier } = await authorize(params)
      const code = response?.searchParams.get('code') ?? ''
      return token({
        ...credentials,
        ...{ grant_type: 'authorization_code', code, redirect_uri: REDIRECT_URI, code_verifier: verifier },
        ...redeem,
      })
    },
    refresh: (refreshToken: string, params: Record<string, string> = {}) =>
      token({ ...credentials, grant_type: 'refresh_token', refresh_token: refreshToken, ...params }),
  }
}
