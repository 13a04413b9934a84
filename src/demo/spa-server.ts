import type { RequestListener } from 'node:http'
import { loadStaticFiles, sendStaticFile } from './static-files.ts'

const HEADERS = {
  // Scripts, styles and calls from this origin only: a strict policy is half of what keeps a browser application safe.
  'content-security-policy':
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
  'referrer-policy': 'same-origin',
  'cache-control': 'no-cache',
}

/** Serves the demo's single-page application: files by name, and `index.html` for every other path without an extension. */
export function createSpaServer(): RequestListener {
  const files = loadStaticFiles(new URL('./spa/', import.meta.url))

  return function spaServer(req, res) {
    req.resume()
    const path = req.url?.split('?', 1)[0] ?? '/'
    const name = path.includes('.') ? path.slice(1) : 'index.html'
    const file = files.get(name)
    if (file && (req.method === 'GET' || req.method === 'HEAD'))
      return void sendStaticFile(res, file, HEADERS)
    res.writeHead(file ? 405 : 404, { ...HEADERS, 'content-type': 'text/plain; charset=utf-8' })
    res.end(file ? 'Only GET and HEAD.\n' : 'There is no such file.\n')
  }
}
