import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import * as nodeModule from 'node:module'
import type { RequestHandler } from 'express'
import { donePage, sendPage } from './pages.ts'

/** The text of a script, ready to be sent. */
type Script = { readonly text: string; readonly etag: string }

let helper: Promise<Script> | undefined

/** Serves `B/client.js`, the browser helper (contract section 4a). A browser asks each time whether it has changed. */
export const clientScript: RequestHandler = async function clientScript(_req, res) {
  helper ??= readHelper().catch((error) => {
    // Read again at the next request: the process may have had no file descriptor left.
    helper = undefined
    throw error
  })
  const { text, etag } = await helper
  res.setHeader('cache-control', 'no-cache')
  res.setHeader('etag', etag)
  res.type('text/javascript').send(text)
}

/** Makes `B/done`, on which the sign-in of a popup ends when it went well, or when the provider needs the user first. */
export function createDone(basePath: string): RequestHandler {
  return function done(req, res) {
    const { id, login_error: reason } = req.query
    sendPage(
      res,
      donePage(basePath, {
        done: typeof id === 'string' ? id : '',
        ...(typeof reason === 'string' && /^\w{1,64}$/.test(reason)
          ? { code: 'session_required', reason }
          : {}),
      }),
    )
  }
}

/** A build has it minified. A checkout does so once, where the packages for development are installed. */
async function readHelper(): Promise<Script> {
  const isSource = import.meta.url.endsWith('.ts')
  const file = new URL(`../../client/client.${isSource ? 'ts' : 'min.js'}`, import.meta.url)
  const code = await readFile(file, 'utf8')
  const text = isSource ? await minified(nodeModule.stripTypeScriptTypes(code)) : code
  return { text, etag: `"${createHash('sha256').update(text).digest('base64url').slice(0, 22)}"` }
}

async function minified(script: string): Promise<string> {
  const terser = await import('terser').catch(() => undefined)
  const { code } = (await terser?.minify(script, MINIFIER)) ?? {}
  return code ?? script
}

/** As in `npm run build`. */
const MINIFIER = { module: true, ecma: 2020, compress: { passes: 3, reduce_vars: false } } as const
