<?php

namespace App\Http\Controllers;

use Illuminate\Http\Request;
use Illuminate\Routing\Controller;

class PageController extends Controller
{
    private int $calls = 0;

    public function __construct(private Request $request)
    {
    }

    public function fresh()
    {
        return ++$this->calls . ' ' . $this->request->query('n') . ' ' . request('n');
    }

    public function push(int $fd)
    {
        return ['pushed' => app('swoole')->push($fd, 'from a page')];
    }

    public function broadcast()
    {
        return ['broadcast' => app('swoole')->broadcast('to everybody')];
    }
}
