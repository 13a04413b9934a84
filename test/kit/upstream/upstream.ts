import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import { setTimeout as delay } from 'node:timers/promises'
import { createLocalJWKSet, createRemoteJWKSet, type JSONWebKeySet, jwtVerify } from 'jose'
import { jwtClaims } from '../../../src/demo/scripted/signing.ts'
import {
  dropConnection,
  type Handle,
  type RecordedRequest,
  sendJson,
  startLocalServer,
} from '../local-server.ts'

/** What the upstream answers; change it at any time. */
export type UpstreamAnswer = {
  /** 200 unless set. */
  status?: number
  headers?: Record<string, string>
  /** Instead of the JSON echo. */
  body?: string
  delayMs?: number
  /** Cuts the connection instead of answering. */
  drop?: boolean
  /** How often this answer is given before the echo returns; always, unless set. */
  times?: number
}

/** How an API upstream is set up. */
export type UpstreamOptions = {
  /** Keys, or where to fetch them: every request then needs a bearer token signed by them, else 401. */
  readonly jwks?: JSONWebKeySet | string
  readonly issuer?: string
  readonly audience?: string
  readonly port?: number
  /** The address that it listens on; 127.0.0.1 unless given. */
  readonly host?: string
  /** Answers some requests itself: return true when it did. */
  readonly handle?: (
    request: RecordedRequest,
    res: ServerResponse,
    req: IncomingMessage,
  ) => boolean | Promise<boolean>
}

/** What an upstream echoes as JSON. */
export type UpstreamEcho = {
  readonly aud: unknown
  readonly sub: unknown
  readonly path: string
  readonly query: string
  readonly method: string
  /** As received, `authorization` replaced by the token's claims and a proof by a word, so that an echo never leaks a token. */
  readonly headers: Record<string, unknown>
  readonly bodyBytes: number
}

/** A running API upstream. */
export type Upstream = {
  readonly url: string
  readonly port: number
  readonly server: Server
  /** Every request as it arrived, tokens included. */
  readonly requests: RecordedRequest[]
  readonly answer: UpstreamAnswer
  close(): Promise<void>
}

/** Starts a recording API: echoes who called, for which audience and with which headers. */
export async function startUpstream(options: UpstreamOptions = {}): Promise<Upstream> {
  const answer: UpstreamAnswer = {}
  const verify = createVerifier(options)
  const serve: Handle = async (request, res, req) => {
    if (await options.handle?.(request, res, req)) return
    const { status = 200, headers = {}, body, delayMs, drop } = take(answer)
    if (delayMs) await delay(delayMs)
    if (drop) return dropConnection(res)
    const refusal = await verify(request)
    if (refusal)
      return sendJson(res, 401, { error: refusal }, { 'www-authenticate': 'Bearer error="invalid_token"' })
    if (body === undefined) return sendJson(res, status, echo(request), headers)
    res.writeHead(status, { 'content-type': 'text/plain', ...headers }).end(body)
  }
  const server = await startLocalServer(serve, options.port, options.host)
  return {
    ...{ url: server.origin, port: server.port, server: server.server, requests: server.requests, answer },
    close: server.close,
  }
}

function take(answer: UpstreamAnswer): UpstreamAnswer {
  if (answer.times === undefined) return answer
  if (answer.times === 0) return {}
  answer.times -= 1
  return answer
}

function createVerifier({ jwks, issuer, audience }: UpstreamOptions) {
  if (jwks === undefined) return async () => undefined
  // Without a pause between two reads a new key is known at once.
  const keys =
    typeof jwks === 'string'
      ? createRemoteJWKSet(new URL(jwks), { cooldownDuration: 0 })
      : createLocalJWKSet(jwks)
  const expected = {
    ...(issuer === undefined ? {} : { issuer }),
    ...(audience === undefined ? {} : { audience }),
  }
  return async function verify(request: RecordedRequest): Promise<string | undefined> {
    const token = bearerToken(request)
    if (token === undefined) return 'no bearer token'
    return jwtVerify(token, keys as ReturnType<typeof createRemoteJWKSet>, expected).then(
      () => undefined,
      (error: unknown) => (error instanceof Error ? error.message : 'invalid token'),
    )
  }
}

/** The bearer token of a recorded request, or undefined. */
export function bearerToken(request: RecordedRequest): string | undefined {
  return /^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1]
}

function echo(request: RecordedRequest): UpstreamEcho {
  const token = bearerToken(request)
  const claims = token === undefined ? undefined : jwtClaims(token)
  const { authorization, dpop, ...headers } = request.headers
  return {
    aud: claims?.aud ?? null,
    sub: claims?.sub ?? null,
    path: request.path,
    query: new URLSearchParams(request.query).toString(),
    method: request.method,
    headers: {
      ...headers,
      ...(authorization === undefined ? {} : { authorization: claims ?? 'opaque' }),
      ...(dpop === undefined ? {} : { dpop: 'a proof' }),
    },
    bodyBytes: Buffer.byteLength(request.body),
  }
}
