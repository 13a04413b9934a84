#!/usr/bin/env node
// A checkout runs its sources; an installed package runs its build, because Node strips no types under node_modules.
const [major] = process.versions.node.split('.').map(Number)
if (major < 24) {
  console.error(
    `cloakroom needs Node.js 24 or newer; this is ${process.version}. In a checkout use "npx cloakroom".`,
  )
  process.exit(1)
}
await import(import.meta.url.includes('/node_modules/') ? '../dist/main.js' : './main.ts')
