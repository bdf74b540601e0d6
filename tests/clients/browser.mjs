// A browser. Each line of input is JavaScript, which may use `page`, `open` and `check`; its result is printed. The
// argument is the directory with the libraries.
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { execFileSync } from 'node:child_process';
import { createRequire } from 'node:module';

const require = createRequire(`${process.argv[2]}/package.json`);
const { chromium } = require('playwright-core');
const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');
const program = execFileSync('sh', ['-c', 'command -v chromium || command -v chromium-browser || command -v google-chrome']);
const browser = await chromium.launch({ executablePath: program.toString().trim(), args: ['--no-sandbox', '--disable-dev-shm-usage'] });

const seen = { problems: [], addresses: [] };
let context, page;

/** Opens an address in a browser that knows nothing of before; options are those of a Playwright context. */
async function open(address, options = {}) {
  await context?.close();
  context = await browser.newContext(options);
  context.setDefaultTimeout(20000);
  page = await context.newPage();
  page.on('request', (request) => seen.addresses.push(request.url()));
  page.on('pageerror', (error) => seen.problems.push(error.message));
  page.on('console', (message) => {
    // What the server refuses, or does not answer, is part of the tests.
    if (message.type() === 'error' && !message.text().startsWith('Failed to load resource')) seen.problems.push(message.text());
  });
  await page.goto(address);
}

/** What keeps people from using the page as it is now. */
async function check() {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => axe.run(document, { resultTypes: ['violations'] }));
  return violations.map(({ id, nodes }) => `${id}: ${nodes[0].html}`);
}

const AsyncFunction = check.constructor;
for await (const line of createInterface({ input: process.stdin })) {
  let told;
  try {
    told = { value: (await new AsyncFunction('page', 'open', 'check', 'seen', JSON.parse(line))(page, open, check, seen)) ?? null };
  } catch (error) {
    told = { error: String(error.stack ?? error), text: await page?.innerText('body').catch(() => '') };
  }
  console.log(JSON.stringify(told));
}
await browser.close();
