import { createServer, type Server, type ServerResponse } from 'node:http'

/** What the admin listener shows. */
export type AdminDeps = {
  readonly metrics: { render(): Promise<{ contentType: string; text: string }> }
  readonly readiness: () => Promise<Readiness>
}

/** `ready` decides the status; the rest tells a person why. */
export type Readiness = {
  readonly ready: boolean
  readonly draining: boolean
  readonly dependencies: Readonly<Record<string, 'ok' | 'unavailable' | 'unknown'>>
}

/** Probes and metrics on a listener of their own (contract section 5); nothing on it names a user. */
export function createAdminServer({ metrics, readiness }: AdminDeps): Server {
  const pages: Readonly<Record<string, (res: ServerResponse) => Promise<void>>> = {
    '/livez': async (res) => answer(res, 200, { status: 'ok' }),
    '/readyz': async (res) => {
      const state = await readiness()
      answer(res, state.ready ? 200 : 503, { status: state.ready ? 'ready' : 'not ready', ...state })
    },
    '/metrics': async (res) => {
      const { contentType, text } = await metrics.render()
      res.writeHead(200, { 'content-type': contentType, 'cache-control': 'no-store' }).end(text)
    },
  }
  return createServer((req, res) => {
    const page = pages[(req.url ?? '').split('?', 1)[0] ?? '']
    if (!page) {
      answer(res, 404, { status: 404, pages: Object.keys(pages) })
    } else if (req.method !== 'GET' && req.method !== 'HEAD') {
      answer(res.setHeader('allow', 'GET, HEAD'), 405, { status: 405 })
    } else {
      page(res).catch(() => answer(res, 500, { status: 500 }))
    }
  })
}

function answer(res: ServerResponse, status: number, body: object): void {
  if (res.headersSent) return
  res
    .writeHead(status, {
      'content-type': 'application/json',
      'cache-control': 'no-store',
      'x-content-type-options': 'nosniff',
    })
    .end(`${JSON.stringify(body)}\n`)
}
